/* Child processes of durable dev. Each dies with us, however we die: the kernel sends it a signal.
 */
#include "cli/dev.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* In the child: only what is allowed between fork and exec. */
__attribute__((noreturn)) static void child_exec(const struct child *child, int log, pid_t parent) {
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setpgid(0, 0); /* ctrl-C is ours to hand on, in the right order */
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) {
        _exit(126);
    }
    if (child->uid != 0 && (initgroups(child->user, child->gid) != 0 || setgid(child->gid) != 0 ||
                            setuid(child->uid) != 0 || chdir("/") != 0)) {
        _exit(126);
    }
    (void)prctl(PR_SET_PDEATHSIG, child->death_signal); /* after setuid, which forgets it */
    if (getppid() != parent) {
        _exit(126); /* we died meanwhile */
    }
    (void)execv(child->argv[0], child->argv);
    _exit(127);
}

dj_status child_start(struct child *child) {
    int log = open(child->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log < 0) {
        return dj_fail(DJ_UNAVAILABLE, "cannot write %s: %s", child->log, strerror(errno));
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        child_exec(child, log, parent);
    }
    (void)close(log);
    if (pid < 0) {
        return dj_fail(DJ_UNAVAILABLE, "cannot start %s: %s", child->name, strerror(errno));
    }
    child->pid = pid;
    return DJ_OK;
}

bool child_has_ended(struct child *child) {
    if (child->pid != 0 && waitpid(child->pid, NULL, WNOHANG) == child->pid) {
        child->pid = 0;
        return true;
    }
    return false;
}

void child_stop(struct child *child, int timeout_ms) {
    if (child->pid == 0) {
        return;
    }
    (void)kill(child->pid, child->stop_signal);
    for (int waited = 0; waited < timeout_ms; waited += 10) {
        if (child_has_ended(child)) {
            return;
        }
        struct timespec rest = { .tv_nsec = 10000000 };
        (void)nanosleep(&rest, NULL);
    }
    (void)kill(child->pid, SIGKILL);
    (void)waitpid(child->pid, NULL, 0);
    child->pid = 0;
}
