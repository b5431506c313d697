/* What a service manager is told, by systemd's protocol: datagrams to the socket that NOTIFY_SOCKET
 * names. Where nobody asked, nothing is sent. A message that is lost is no error of ours: whoever
 * waits for it has a timeout. From one thread, but notify_stopping, which a signal handler may call
 * as well. */
#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

/** Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, and takes them out of the environment, so
 * that no child speaks for us. Call it before there are threads. */
void notify_open(void);

/** The program does its work from now on. Said once, however often it is called. */
void notify_ready(void);

/** The program is ending. Said once. */
void notify_stopping(void);

/** The loop is alive. Call it as often as you like: it is said twice in the time that the manager
 * has set, and not at all if it has set none. */
void notify_alive(void);

#endif
