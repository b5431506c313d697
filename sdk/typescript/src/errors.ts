// What can go wrong, as classes that can be told apart, and as the JSON in which a run keeps an error.

import { durationMs, durationText, type Duration } from './duration.js'

/** The codes of the API's errors; `step_failed` and the like belong to the classes below. */
export type ErrorCode =
  | 'invalid_argument' | 'unauthorized' | 'forbidden' | 'not_found' | 'conflict' | 'idempotency_conflict'
  | 'payload_too_large' | 'rate_limited' | 'unavailable' | 'method_not_allowed' | 'timeout' | 'uri_too_long'
  | 'unsupported_media_type' | 'headers_too_large' | 'internal' | 'not_implemented' | 'lease_lost'

const STATUS_CODES: Record<number, ErrorCode> = {
  400: 'invalid_argument', 401: 'unauthorized', 403: 'forbidden', 404: 'not_found', 405: 'method_not_allowed',
  408: 'timeout', 409: 'conflict', 413: 'payload_too_large', 414: 'uri_too_long', 415: 'unsupported_media_type',
  429: 'rate_limited', 431: 'headers_too_large', 501: 'not_implemented', 502: 'unavailable', 503: 'unavailable',
  504: 'timeout'
}

/** The code of an answer that does not name its own. */
export function codeOf(status: number): ErrorCode {
  return STATUS_CODES[status] ?? (status >= 500 || status === 0 ? 'internal' : 'invalid_argument')
}

/**
 * An answer of the API that is not a success, or no answer at all (`status` 0, `code` `unavailable`, the reason in
 * `cause`). Calls that are safe to repeat were repeated before it is thrown.
 *
 * @example
 * try {
 *   await stackshift.start('charge', { order: 7 }, { idempotencyKey: 'charge:7' })
 * } catch (error) {
 *   if (error instanceof StackShiftError && error.code === 'idempotency_conflict') console.warn(error.detail)
 *   else throw error
 * }
 */
export class StackShiftError extends Error {
  override readonly name: string = 'StackShiftError'
  /** Which kind of error, as the API names it. */
  readonly code: ErrorCode | (string & {})
  /** The HTTP status; 0 where there was no answer. */
  readonly status: number
  /** What is wrong, in a sentence: the argument, its value, what would be right. */
  readonly detail: string
  /** How long the server asks to wait before the next try. */
  readonly retryAfterMs: number | undefined
  /** False where doing the same again cannot help; a handler that lets it out is not tried again. */
  readonly retryable: boolean

  constructor(code: ErrorCode | (string & {}), status: number, detail: string,
    options: { cause?: unknown, retryAfterMs?: number } = {}) {
    super(detail, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.status = status
    this.detail = detail
    this.retryAfterMs = options.retryAfterMs
    this.retryable = code !== 'invalid_argument' && code !== 'payload_too_large'
  }
}

/**
 * Thrown by a step or a handler: trying again cannot help. The run fails at once, unless the handler catches it.
 *
 * @example
 * if (!order) throw new NonRetryableError(`order ${payload.orderId} is not there`)
 */
export class NonRetryableError extends Error {
  override readonly name: string = 'NonRetryableError'
  readonly code: string = 'non_retryable'
  readonly retryable = false as const
  /** The step that threw it, once it has been through one. */
  step?: string
}

/**
 * Thrown by a step or a handler: the next try is to come after `delay`, whatever the backoff says.
 *
 * @example
 * if (response.status === 429) throw new RetryAfterError('the mail service is busy', '30s')
 */
export class RetryAfterError extends Error {
  override readonly name: string = 'RetryAfterError'
  readonly code: string = 'retry_after'
  readonly retryable = true as const
  /** How long to wait, such as `30s`. */
  readonly retryAfter: string
  /** The step that threw it, once it has been through one. */
  step?: string

  constructor(message: string, delay: Duration | Date, options?: { cause?: unknown }) {
    super(message, options)
    this.retryAfter = delay instanceof Date
      ? durationText(Math.max(1, delay.getTime() - Date.now()), 'delay')
      : durationText(delay, 'delay')
  }

  /** `retryAfter` in milliseconds. */
  get delayMs(): number {
    return durationMs(this.retryAfter, 'delay')
  }
}

/**
 * What a handler catches when a step or a child run has failed. It carries the original's name, message and stack,
 * but is never of the original's class: after a resume only those texts are left, and the handler has to decide in
 * the same way both times. So ask for `error.name`, not for `instanceof`.
 *
 * @example
 * try {
 *   await step.run('charge', () => charge(card))
 * } catch (error) {
 *   if (!(error instanceof StepError) || error.name !== 'CardDeclined') throw error
 *   await step.run('tell', () => mail(user, 'your card was declined'))
 * }
 */
export class StepError extends Error {
  override readonly name: string
  readonly code: string
  readonly retryable: boolean
  /** The step, as the run remembers it. */
  readonly step: string

  constructor(step: string, error: ErrorJson) {
    super(error.message)
    this.name = error.name ?? 'Error'
    this.code = error.code ?? 'step_failed'
    this.retryable = error.retryable !== false
    this.step = step
  }
}

/** What a handler did that cannot work; `code` says which of these it was, the message how to mend it. */
export type MisuseCode = 'nested_step' | 'step_not_awaited' | 'not_json' | 'invalid_name'

/**
 * A handler used its steps in a way that cannot work: the message says how to mend it. The run fails without further
 * attempts, since the same code would do the same again; `retry` after the fix goes on from the last step.
 *
 * @example
 * const run = await testJob(job)
 * if (run.error?.name === 'MisuseError') throw new Error(run.error.message)
 */
export class MisuseError extends Error {
  override readonly name: string = 'MisuseError'
  readonly code: MisuseCode
  readonly retryable = false as const

  constructor(code: MisuseCode, message: string) {
    super(message)
    this.code = code
  }
}

/** An error as a run keeps it. */
export interface ErrorJson {
  name?: string
  message: string
  stack?: string
  step?: string
  code?: string
  retryable?: boolean
  retryAfter?: string
}

const MESSAGE_CHARS_MAX = 8 * 1024
const STACK_CHARS_MAX = 16 * 1024
const OWN_CODES = new Set(['step_failed', 'non_retryable', 'retry_after']) // they say no more than the name does

/** Text that a database takes: a message may quote anything, and must not cost the run its commit. */
export function cleanText(text: string, charsMax = MESSAGE_CHARS_MAX): string {
  const cut = text.length > charsMax ? text.slice(0, charsMax) : text
  return cut.replace(/\0|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd')
}

/** What was thrown, as the run will keep it. Anything can be thrown, so nothing is taken for granted here. */
export function errorJson(thrown: unknown, step?: string): ErrorJson {
  if (typeof thrown !== 'object' || thrown === null) {
    return { name: 'Error', message: cleanText(String(thrown), MESSAGE_CHARS_MAX), ...(step && { step }) }
  }
  const error = thrown as Partial<Record<keyof ErrorJson, unknown>>
  const json: ErrorJson = {
    name: typeof error.name === 'string' ? cleanText(error.name, 200) : 'Error',
    message: cleanText(typeof error.message === 'string' ? error.message : describe(thrown), MESSAGE_CHARS_MAX)
  }
  if (typeof error.stack === 'string') json.stack = cleanText(error.stack, STACK_CHARS_MAX)
  const from = step ?? error.step
  if (typeof from === 'string') json.step = from
  if (typeof error.code === 'string' && !OWN_CODES.has(error.code)) json.code = cleanText(error.code, 200)
  if (error.retryable === false) json.retryable = false
  if (typeof error.retryAfter === 'string') json.retryAfter = error.retryAfter
  return json
}

function describe(thrown: object): string {
  try {
    return JSON.stringify(thrown) ?? 'an object was thrown'
  } catch {
    return 'an object was thrown'
  }
}

/** The error that a handler is given for what the run keeps: the same the first time and after each resume. */
export function errorFrom(json: ErrorJson, step: string): Error {
  const error = rebuilt(json, step)
  if (json.stack !== undefined) error.stack = json.stack
  return error
}

function rebuilt(json: ErrorJson, step: string): Error {
  if (json.name === 'NonRetryableError') return Object.assign(new NonRetryableError(json.message), { step })
  if (json.name === 'RetryAfterError' && /^(\d{1,12}(ms|s|m|h|d))+$/.test(json.retryAfter ?? '')) {
    return Object.assign(new RetryAfterError(json.message, json.retryAfter!), { step })
  }
  if (json.name === 'StackShiftError') {
    return new StackShiftError(json.code ?? 'internal', json.code === undefined ? 500 : statusOf(json.code), json.message)
  }
  return new StepError(step, json)
}

function statusOf(code: string): number {
  if (code === 'idempotency_conflict' || code === 'lease_lost') return 409
  for (const [status, known] of Object.entries(STATUS_CODES)) if (known === code) return Number(status)
  return 500
}
