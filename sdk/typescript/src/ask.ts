// What a handler asks for with a durable call, and the promise that it is given for it.

import type { Kind } from './protocol.js'
import type { Asked } from './replay.js'

/** A promise that knows whether anybody waits for it. */
export class AskPromise<T> extends Promise<T> {
  waited = false

  static override get [Symbol.species](): PromiseConstructor {
    return Promise
  }

  override then<A = T, B = never>(done?: ((value: T) => A | PromiseLike<A>) | null,
    failed?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<A | B> {
    this.waited = true
    return super.then(done, failed)
  }
}

/** One thing that the handler asked for. */
export class Ask implements Asked {
  readonly promise: AskPromise<unknown>
  resolve!: (value: unknown) => void
  reject!: (error: unknown) => void
  name = ''
  place = -1
  outstanding = true

  constructor(readonly kind: Kind, /** As the handler wrote it. */ readonly what: string,
    readonly begin: (ask: Ask) => void, readonly accept: (result: unknown) => unknown) {
    this.promise = new AskPromise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    // A step that nobody waits for is reported at the end; until then its error must not end the process.
    Promise.prototype.then.call(this.promise, undefined, () => {})
  }
}

/** Inside of which step function the code runs. */
export interface StepScope {
  call: object
  step: string
  running: boolean
}

/** Node's AsyncLocalStorage, as far as it is used here. */
export interface LocalStorage<T> {
  getStore(): T | undefined
  run<R, A extends unknown[]>(store: T, fn: (...values: A) => R, ...values: A): R
}
