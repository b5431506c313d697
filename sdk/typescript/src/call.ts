// One call of a handler: from the worker's request to the answer.
//
// The handler runs once. What it asks for goes through the replay; what is new is done by step.ts and state.ts, which
// hand their ops in here. In commit mode ops go to commit.url at once, and the handler goes on when they are durable.
// In answer mode (there is no commit.url, or nobody answers there) they stay, and end the call: `continue`.
//
// A wait, a sleep or a child, or several of them at once, end the call too, `suspended`: their promises are never settled,
// so there is nothing that a `catch` or `finally` of the handler could mistake for an error; the handler is left where it
// stands, and forgotten. The run goes on with the first of them that is over, and the handler asks for the rest again.
//
// When does a call end? `busy` counts what goes on: step functions, ops under way. Nothing new begins once an end is
// decided, and the answer waits until `busy` is 0, so that the results of steps in hand are kept, and until the code
// that can go on has gone on, so that Promise.all([sleep, step]) does its step before it suspends.
//
// A step's error without a policy is the handler's to deal with. If the handler ends with it, it is kept nowhere, and
// the step is done again in the next attempt. If the handler goes on instead, it has dealt with it: then the error is
// committed before what comes next, since a replay has to take the same way.

import { Ask, type LocalStorage, type StepScope } from './ask.js'
import type { Committer, Lease, Op } from './commit.js'
import { cleanText, errorFrom, errorJson, MisuseError, StackShiftError, type ErrorJson } from './errors.js'
import { contextOf, logOf, type Job, type Level, type Log } from './job.js'
import { jsonText, looseText } from './json.js'
import { Outbox } from './outbox.js'
import { afterTurn } from './platform.js'
import { NAME, stepOp, type CallRequest, type Committed, type Kind, type OpResult, type Remembered } from './protocol.js'
import { Replay, type Mismatch } from './replay.js'
import type { StepFunction } from './step.js'
import type { RunInfo } from './types.js'

const ANSWER_BYTES_MAX = 4 * 1024 * 1024
const BRANCHES_MAX = 500 // that may suspend a run at once
const BRANCHES_CHARS_MAX = 1024 * 1024 // of their ops, but for the first; a character is up to 3 bytes

/** What a handler may leave behind: nothing of it goes on in this process. */
const WAITING: ReadonlySet<Kind> = new Set<Kind>(['wait_event', 'wait_any', 'sleep', 'child'])

/** What calls need around them. */
export interface CallSettings {
  committer(url: string): Committer
  /** Knows inside of which step function code runs; absent where the platform has none. */
  storage?: LocalStorage<StepScope>
  warn(message: string): void
  /** Puts another function in place of a step's. */
  standIn?(name: string, fn: StepFunction<unknown>): StepFunction<unknown>
  /** How long an idle handler may leave remembered entries unasked; the longer one for a handler with branches. */
  graceMs?: number
  branchesGraceMs?: number
  /** How long the handler of a cancelled run has to end. */
  cancelGraceMs?: number
}

export class Call implements Lease {
  readonly token: string
  readonly run: RunInfo
  readonly storage: LocalStorage<StepScope> | undefined
  saidAt = 0
  /** Over: the answer is given, whatever comes is of no use any more. */
  over = false
  /** How many step functions are in their first, synchronous part: where there is no storage to ask. */
  inStep = 0

  private readonly replay: Replay<Ask>
  private readonly asks: Ask[] = []
  private outstanding = 0
  private activity = 0
  private branches = false
  private busy = 0
  private committer: Committer | undefined // undefined: answer mode
  private readonly outbox = new Outbox()
  private wanted: { text: string, alone: boolean }[] = []
  private hesitant: Ask[] | undefined
  private settled: { value: unknown } | { error: unknown } | undefined
  private misuse: MisuseError | undefined
  private fatal: unknown
  private mismatch: Mismatch | undefined
  private ending = false
  private cancelled = false
  private hooked = false
  private hopping = false
  private timer: ReturnType<typeof setTimeout> | undefined
  private controller: AbortController | undefined
  private abortReason: Error | undefined
  private deadline: number
  private answer!: (text: string) => void

  constructor(readonly request: CallRequest, private readonly job: Job, private readonly settings: CallSettings) {
    const { commit, run } = request
    this.run = run
    this.token = commit?.token ?? ''
    this.storage = settings.storage
    this.deadline = performance.now() + (commit?.maxRunMs ?? Infinity)
    if (commit?.url) {
      const committer = settings.committer(commit.url)
      if (committer.reachable) this.committer = committer
    }
    this.replay = new Replay(Array.isArray(request.steps) ? request.steps : [], {
      begin: ask => this.begin(ask),
      deliver: (ask, entry) => this.deliver(ask, entry),
      later: callback => this.later(callback),
      load: entry => void this.load(entry)
    })
  }

  /** Calls the handler, and gives the answer's text. Never rejects. */
  start(): Promise<string> {
    return new Promise(resolve => {
      this.answer = resolve
      this.committer?.attach(this)
      let returned: unknown
      try {
        returned = this.job.handler(contextOf(this))
      } catch (error) {
        return this.handlerEnded({ error })
      }
      Promise.resolve(returned).then(value => this.handlerEnded({ value }), error => this.handlerEnded({ error }))
    })
  }

  /** Aborts when the run is cancelled or lost. */
  get signal(): AbortSignal {
    if (this.controller === undefined) {
      this.controller = new AbortController()
      if (this.abortReason !== undefined) this.controller.abort(this.abortReason)
    }
    return this.controller.signal
  }

  /** Is the handler still at what was done in an earlier call? */
  get replaying(): boolean {
    return this.replay.replaying
  }

  /** How often this step has failed so far. */
  tries(name: string): number {
    return this.request.tries?.[name] ?? 0
  }

  /** The function to call for a step. */
  functionOf(name: string, fn: StepFunction<unknown>): StepFunction<unknown> {
    return this.settings.standIn?.(name, fn) ?? fn
  }

  // --- What the handler asks for ---

  /** A durable call of the handler. `begin` does it where it is new; `accept` makes its value of what is remembered. */
  ask<T>(kind: Kind, base: string, what: string, begin: (ask: Ask) => void,
    accept: (result: unknown) => unknown = result => result): Promise<T> {
    const ask = new Ask(kind, what, begin, accept)
    const promise = ask.promise as unknown as Promise<T>
    if (this.over || this.settled !== undefined) return promise // nobody will hear of it
    this.activity++
    this.asks.push(ask)
    if (this.outstanding++ > 0) this.branches = true
    const scope = this.storage?.getStore()
    if (this.inStep > 0 || scope?.call === this && scope.running) {
      const outer = scope === undefined ? 'a step' : `step "${scope.step}"`
      this.misused(ask, new MisuseError('nested_step', `${what} was called inside of ${outer}: a step`
        + ' is done as a whole, so it cannot have durable calls in it; move the call out of the step, behind it'))
    } else if (typeof base !== 'string' || !NAME.test(base)) {
      this.misused(ask, new MisuseError('invalid_name', `'${String(base).slice(0, 210)}' in ${what} is not a name; `
        + '1 to 200 characters of A-Z a-z 0-9 _ . : / @ - are allowed'))
    } else {
      ask.name = this.replay.nameOf(base)
      const mismatch = this.replay.ask(ask)
      if (mismatch !== undefined) this.park(mismatch)
      else this.check()
    }
    return promise
  }

  /** `step.patched`: true in the first run that reaches it with nothing remembered behind it, and from then on. */
  patched(name: string): boolean {
    if (!NAME.test(`patched:${name}`)) {
      throw new StackShiftError('invalid_argument', 400, `patch '${String(name).slice(0, 210)}' is not a name`)
    }
    const { patched, op } = this.replay.patch(name)
    // Nothing waits for it: it goes with what the handler commits next.
    if (op !== undefined) this.outbox.push(stepOp(op, 'true', undefined, new Date()))
    return patched
  }

  /** Something goes on: the answer waits for it, until it is committed, or left. */
  enter(): void {
    this.busy++
  }

  leave(): void {
    this.busy--
    this.check()
  }

  /** Commits an op of something that was entered. Its result is given to `done`, unless the call ends before. */
  commit(text: string, done: (result: OpResult) => void): void {
    if (this.over) return
    if (this.cancelled || this.fatal !== undefined) return this.leave()
    this.outbox.push(text, done)
    if (this.committer !== undefined) return this.committer.wake(this)
    afterTurn(() => { // what the handler asks for in the same breath still begins
      this.ending = true
      this.leave()
    })
  }

  /** Suspends the run with this op and others that want to, once nothing else goes on. `alone`: with this one only. */
  suspend(text: string, alone = false): void {
    this.wanted.push({ text, alone })
    this.check()
  }

  /** A step without a policy has failed. `op` keeps its error, should the handler go on. */
  threw(ask: Ask, error: ErrorJson, op: string): void {
    this.outbox.catch(op)
    this.hesitate() // nothing begins before it is seen whether the handler ends with this error
    this.reject(ask, errorFrom(error, ask.name))
    this.leave()
  }

  /** Using steps in a way that cannot work fails the run, even if the handler catches the error. */
  misused(ask: Ask, error: MisuseError): void {
    this.misuse ??= error
    this.reject(ask, error)
  }

  // A step's function may come back after the call is over. Its handler is not told: what it did then would be for nobody.
  resolve(ask: Ask, value: unknown): void {
    if (this.over) return
    this.closeAsk(ask)
    ask.resolve(value)
    if (ask.place >= 0) this.replay.passed(ask)
  }

  reject(ask: Ask, error: unknown): void {
    if (this.over) return
    this.closeAsk(ask)
    ask.reject(error)
    if (ask.place >= 0) this.replay.passed(ask)
  }

  /** Gives the handler what came of an op. */
  give(ask: Ask, result: OpResult): void {
    if (result.error !== undefined && result.error !== null) this.reject(ask, errorFrom(result.error, ask.name))
    else this.resolve(ask, ask.accept(result.result ?? null))
  }

  /** Writes into the run's log, but not what a replay has written already. */
  log(level: Level, message: string, fields?: Record<string, unknown>, always = false): void {
    if (this.over || this.replaying && !always) return
    if (this.committer === undefined && this.outbox.full) return
    let text = `{"op":"log","level":"${level}","message":${JSON.stringify(cleanText(String(message)))}`
    if (fields !== undefined) text += `,"fields":${looseText(fields)}`
    if (this.outbox.pushLazy(`${text}}`)) this.committer?.wake(this)
  }

  progress(value: unknown): void {
    if (this.over || this.replaying) return
    const beginning = '{"op":"progress"'
    const text = `${beginning},"value":${jsonText(value, 'the progress')}}`
    if (!this.outbox.replace(beginning, text)) this.outbox.pushLazy(text) // only how far it has come by now matters
  }

  /** The server goes down: the call is to end at the next occasion. */
  drain(): void {
    this.deadline = 0
  }

  /** The worker has hung up: the run is, or will be, another's. What goes on is committed if it still may be; nothing new begins. */
  hungUp(): void {
    this.ending = true
    this.check()
  }

  // --- As a lease ---

  take(charsMax: number): Op[] {
    return this.outbox.take(charsMax)
  }

  hasMore(): boolean {
    return this.outbox.length > 0
  }

  settle(committed: Committed): void {
    if ('code' in committed && committed.code === 'unauthorized') return this.unreachable() // the token is not known there any more
    const ops = this.outbox.arrived()
    if (this.over) return
    if ('code' in committed) return this.refused(committed.code, committed.message)
    if (committed.cancelled === true && !this.cancelled) this.cancel()
    const late = performance.now() >= this.deadline
    for (let i = 0; i < ops.length; i++) {
      const { done } = ops[i]!
      if (done === undefined) continue
      this.busy--
      if (late) this.ending = true // but not at a heartbeat: the handler's own work would begin again, and again
      if (!this.closing) done(committed.results[i]!)
    }
    this.activity++
    this.check()
  }

  unreachable(): void {
    if (this.over || this.committer === undefined) return
    this.committer.detach(this)
    this.committer = undefined
    const waitedFor = this.outbox.back()
    this.busy -= waitedFor
    if (waitedFor > 0) this.ending = true
    this.check()
  }

  // --- How it ends ---

  /** Does nothing new begin any more? */
  private get closing(): boolean {
    return this.ending || this.cancelled || this.fatal !== undefined || this.mismatch !== undefined
  }

  private handlerEnded(settled: NonNullable<Call['settled']>): void {
    if (this.over) return
    this.settled = settled
    this.check()
  }

  /** Looks whether the call is to end now. Called whenever something has changed that may end it. */
  private check(): void {
    if (this.over || this.busy > 0 || this.hesitant !== undefined || this.hooked) return
    if (this.cancelled) this.endCancelled()
    else if (this.fatal !== undefined) this.fail(this.fatal)
    else if (this.mismatch !== undefined) this.finish('suspended', '', JSON.stringify({ op: 'park', ...this.mismatch }))
    else if (this.settled !== undefined) this.endSettled(this.settled)
    else if (this.ending || this.wanted.length > 0) this.hop()
    else if (this.replaying && this.replay.stuck() !== undefined) this.watch()
  }

  /** Ends the call, unless the handler has gone on to something else by then. */
  private hop(): void {
    if (this.hopping) return
    this.hopping = true
    afterTurn(() => {
      this.hopping = false
      if (this.over || this.busy > 0 || this.hesitant !== undefined) return
      if (this.settled !== undefined || this.cancelled || this.fatal !== undefined || this.mismatch !== undefined) {
        return this.check()
      }
      if (this.misuse !== undefined) return this.fail(this.misuse)
      const alone = this.wanted.find(({ alone }) => alone)
      if (alone !== undefined) this.finish('suspended', '', alone.text)
      else if (this.ending) this.finish('continue') // the handler may have left behind what it has asked for
      else if (this.wanted.length > 0) this.finish('suspended', '', this.suspending())
    })
  }

  /** The ops that suspend the run now. Of very many, or very large ones, the last are asked for in a later call. */
  private suspending(): string {
    let chars = 0
    const fitting = this.wanted.filter(({ text }, i) =>
      (chars += text.length) <= BRANCHES_CHARS_MAX && i < BRANCHES_MAX || i === 0)
    return fitting.map(({ text }) => text).join(',')
  }

  /** The handler waits for something out of turn. Is it idle? */
  private watch(): void {
    if (this.timer !== undefined) return
    const { activity } = this
    this.timer = setTimeout(() => {
      this.timer = undefined
      const mismatch = this.replay.stuck()
      if (this.over || this.busy > 0 || this.settled !== undefined || mismatch === undefined) return
      if (activity === this.activity) this.park(mismatch)
      else this.watch()
    }, this.branches ? this.settings.branchesGraceMs ?? 10_000 : this.settings.graceMs ?? 1000)
  }

  private endSettled(settled: NonNullable<Call['settled']>): void {
    if (this.misuse !== undefined) return this.fail(this.misuse)
    if ('error' in settled) return this.fail(settled.error)
    const left = this.asks.find(ask => !ask.promise.waited || ask.outstanding && !WAITING.has(ask.kind))
    if (left !== undefined) {
      return this.fail(new MisuseError('step_not_awaited', `the handler did not wait for ${left.what}: write `
        + `"await ${left.what}", or gather several calls in "await Promise.all([…])"; Promise.race may leave waits, `
        + 'sleeps and children behind, but no step'))
    }
    const mismatch = this.replay.left()
    if (mismatch !== undefined) return this.park(mismatch)
    let result: string
    try {
      result = jsonText(settled.value, `the result of job "${this.job.name}"`)
    } catch (error) {
      return this.fail(error)
    }
    this.outbox.keepCaught()
    this.finish('completed', `,"result":${result}`)
  }

  private fail(thrown: unknown): void {
    const error = errorJson(thrown)
    const { onFailure } = this.job.options
    const final = error.retryable === false || this.run.attempt >= this.run.maxAttempts
    const end = (): void => this.finish('failed', `,"error":${JSON.stringify(error)}`)
    if (onFailure === undefined || !final) return end()
    this.hook('onFailure', end, log => onFailure({
      payload: this.request.payload, run: this.run, attempt: this.run.attempt, error, log
    }))
  }

  private endCancelled(): void {
    const { onCancel } = this.job.options
    const end = (): void => this.dismiss('Cancelled', 'the run was cancelled')
    if (onCancel === undefined) return end()
    this.hook('onCancel', end, log => onCancel({
      payload: this.request.payload, run: this.run, attempt: this.run.attempt, log
    }))
  }

  /** Calls a function of the user's that watches the end, which comes whatever the function does. */
  private hook(name: string, end: () => void, call: (log: Log) => unknown): void {
    this.hooked = true
    const log = logOf({ log: (level, message, fields) => this.log(level, message, fields, true) })
    void (async () => {
      try {
        await call(log)
      } catch (error) {
        const { message } = errorJson(error)
        log.error(`${name} failed: ${message}`)
        this.settings.warn(`${name} of job ${this.job.name} failed in run ${this.run.id}: ${message}`)
      }
      end()
    })()
  }

  /** This is not the code that began the run. What is in hand is kept; then the run waits for code that fits. */
  private park(mismatch: Mismatch): void {
    this.mismatch ??= mismatch
    this.check()
  }

  private cancel(): void {
    this.cancelled = true
    this.abort(new Error('the run was cancelled'))
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      if (!this.over && !this.hooked) this.endCancelled()
    }, this.settings.cancelGraceMs ?? 5000)
  }

  private refused(code: string, message: string | undefined): void {
    if (code === 'lease_lost') {
      this.abort(new Error('another worker has the run'))
      return this.dismiss('LeaseLost', 'another worker has the run')
    }
    const error = new StackShiftError(code, 400, message ?? `what the handler did was refused: ${code}`)
    this.fatal ??= Object.assign(error, { retryable: false })
    this.abort(error)
    this.busy = 0 // what still goes on has nobody left to tell
    this.check()
  }

  private abort(reason: Error): void {
    this.abortReason ??= reason
    this.controller?.abort(this.abortReason)
  }

  /** Ends a call of which nothing more is kept. */
  private dismiss(name: string, message: string): void {
    this.fatal ??= name
    this.finish('failed', `,"error":${JSON.stringify({ name, message })}`)
  }

  private finish(status: string, outcome = '', last?: string): void {
    if (this.over) return
    this.over = true
    clearTimeout(this.timer)
    this.committer?.detach(this)
    const ops = this.fatal !== undefined ? '' : this.outbox.texts() + (last === undefined ? '' : `${last},`)
    const text = `{"protocol":1,"ops":[${ops.slice(0, -1)}],"status":"${status}"${outcome}}`
    this.answer(text.length > ANSWER_BYTES_MAX / 3 ? this.withinLimit(text) : text)
  }

  /** An answer that is too long is not read by the worker, which could not say why either. */
  private withinLimit(text: string): string {
    const bytes = new TextEncoder().encode(text).length
    if (bytes <= ANSWER_BYTES_MAX) return text
    const error = new StackShiftError('payload_too_large', 413,
      `the answer of job ${this.job.name} is ${bytes} bytes; the limit is ${ANSWER_BYTES_MAX}`)
    return `{"protocol":1,"ops":[],"status":"failed","error":${JSON.stringify(errorJson(error))}}`
  }

  // --- What the parts above have in common ---

  private begin(ask: Ask): void {
    if (this.closing || this.over) return
    if (this.hesitant !== undefined) {
      this.hesitant.push(ask)
      return
    }
    this.outbox.keepCaught()
    try {
      ask.begin(ask)
    } catch (error) { // its arguments are not what they should be
      this.reject(ask, error)
    }
  }

  private deliver(ask: Ask, entry: Remembered): void {
    this.activity++
    ask.place = -1
    this.give(ask, entry)
  }

  private later(callback: () => void): void {
    const then = (): void => {
      if (!this.over) callback()
      this.leave()
    }
    this.enter()
    if (this.branches) afterTurn(then)
    else queueMicrotask(then)
  }

  private async load(entry: Remembered): Promise<void> {
    this.busy++
    let value: OpResult
    try {
      const { commit } = this.request
      value = await this.settings.committer(commit?.url ?? '').read(entry.ref!, this.token)
    } catch (error) {
      this.fatal ??= Object.assign(error as Error, { retryAfter: '5s' })
      return this.leave()
    }
    this.busy--
    this.activity++
    if (this.over) return
    this.replay.loaded(entry, value)
    this.check()
  }

  private hesitate(): void {
    if (this.hesitant !== undefined) return
    this.hesitant = []
    afterTurn(() => {
      const asks = this.hesitant ?? []
      this.hesitant = undefined
      if (this.settled === undefined) for (const ask of asks) this.begin(ask)
      this.check()
    })
  }

  private closeAsk(ask: Ask): void {
    if (!ask.outstanding) return
    ask.outstanding = false
    this.outstanding--
    this.activity++
  }
}
