// What JSON can hold. A result is kept as JSON and given back to the handler from it, the first time as well as after
// a resume, so that a handler never sees two different things. What JSON would silently change into something else (a
// Map into {}, NaN into null) is refused, with the place where it is.

import { cleanText, errorJson, MisuseError, StackShiftError } from './errors.js'

/**
 * `T` as it comes back from JSON: a Date is a string, nothing (`undefined`) is null, methods are gone.
 *
 * @example
 * const user: Kept<{ name: string, born: Date }> = { name: 'Ada', born: '1815-12-10T00:00:00.000Z' }
 */
export type Kept<T> =
  0 extends 1 & T ? T
    : unknown extends T ? T
      : T extends string | number | boolean | null ? T
        : T extends undefined | void ? null
          : T extends { toJSON(...args: never[]): infer U } ? Kept<U>
            : T extends bigint | symbol | ((...args: never[]) => unknown) ? never
              : T extends readonly unknown[] ? { [K in keyof T]: Kept<T[K]> }
                : T extends object ? KeptObject<T>
                  : T

/** The members of an object that JSON keeps; one that may be absent stays so. */
export type KeptObject<T> = {
  [K in keyof T as K extends string | number ? (T[K] extends (...args: never[]) => unknown ? never : K) : never]:
  Kept<Exclude<T[K], undefined>> | Extract<T[K], undefined>
}

const DEPTH_MAX = 64

interface Problem {
  path: string
  why: string
}

/**
 * The value as JSON text; `undefined` is null. Throws a MisuseError that names the place of what JSON cannot hold.
 * `what` begins its message: `the result of step "charge"`.
 */
export function jsonText(value: unknown, what: string): string {
  if (value === undefined || value === null) return 'null'
  const problem = look(value, [])
  if (problem !== undefined) {
    throw new MisuseError('not_json', `${what}${problem.path === '' ? '' : `: ${problem.path.replace(/^\./, '')}`} `
      + problem.why)
  }
  const text = JSON.stringify(value)
  if (text.includes('\\u') && /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/.test(text)) {
    throw new MisuseError('not_json', `${what} has a text with the character U+0000 or half of a surrogate pair, `
      + 'which cannot be stored: encode binary data, as base64 for example')
  }
  return text
}

/** The same for an argument of a call from outside of handlers: a StackShiftError `invalid_argument`. */
export function argumentText(value: unknown, what: string): string {
  try {
    return jsonText(value, what)
  } catch (error) {
    throw new StackShiftError('invalid_argument', 400, (error as Error).message)
  }
}

const FIELDS_CHARS_MAX = 256 * 1024 // a line of the log is not to fail its run, which a mebibyte would

/** An object as JSON text, whatever is in it: what JSON cannot hold becomes some text, and what is too much is left out. */
export function looseText(fields: Record<string, unknown>): string {
  const text = fittingText(fields)
  return text.length <= FIELDS_CHARS_MAX ? text : `{"leftOut":"fields of ${text.length} characters"}`
}

function fittingText(fields: Record<string, unknown>): string {
  try {
    return jsonText(fields, 'fields')
  } catch {
    const texts: Record<string, unknown> = {}
    for (const [name, value] of Object.entries(fields)) {
      texts[cleanText(name)] = value instanceof Error ? errorJson(value) : cleanText(String(value))
    }
    return JSON.stringify(texts)
  }
}

/** The value as it will be read back from `text`. */
export function kept(value: unknown, text: string): unknown {
  if (value === undefined) return null
  return typeof value === 'object' ? JSON.parse(text) : value
}

function look(value: unknown, above: object[]): Problem | undefined {
  switch (typeof value) {
    case 'string':
    case 'boolean':
    case 'undefined': // left out of an object, null in an array: the same each time
      return undefined
    case 'number':
      if (Number.isFinite(value)) return undefined
      return { path: '', why: `is ${value}, which JSON cannot hold: make it null, or a string` }
    case 'bigint':
      return { path: '', why: 'is a bigint, which JSON cannot hold: make it a string' }
    case 'function':
      return { path: '', why: 'is a function, which JSON cannot hold: leave it out' }
    case 'symbol':
      return { path: '', why: 'is a symbol, which JSON cannot hold: make it a string' }
    case 'object':
      return value === null ? undefined : lookInto(value, above)
  }
}

function lookInto(value: object, above: object[]): Problem | undefined {
  const why = unfit(value)
  if (why !== undefined) return { path: '', why }
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') {
    return look((value as { toJSON(key: string): unknown }).toJSON(''), above)
  }
  if (above.includes(value)) {
    return { path: '', why: 'is part of itself, which JSON cannot hold: take only what is needed of it' }
  }
  if (above.length >= DEPTH_MAX) return { path: '', why: `is nested deeper than ${DEPTH_MAX} levels, which is not stored` }
  above.push(value)
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const problem = look(value[i], above)
      if (problem !== undefined) return { path: `[${i}]${problem.path}`, why: problem.why }
    }
  } else {
    for (const key of Object.keys(value)) {
      const problem = look((value as Record<string, unknown>)[key], above)
      if (problem !== undefined) return { path: `.${key}${problem.path}`, why: problem.why }
    }
  }
  above.pop()
  return undefined
}

/** Objects of which JSON would keep nothing, or something else than they are. */
function unfit(value: object): string | undefined {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === Object.prototype || prototype === Array.prototype || prototype === null) return undefined
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'is an invalid Date' : undefined
  if (value instanceof Map) return 'is a Map, which JSON cannot hold: make it Object.fromEntries(map)'
  if (value instanceof Set) return 'is a Set, which JSON cannot hold: make it [...set]'
  if (value instanceof Error) return 'is an Error, which JSON cannot hold: throw it, or take its message'
  if (value instanceof RegExp) return 'is a RegExp, which JSON cannot hold: take its source'
  if (value instanceof WeakMap || value instanceof WeakSet) return 'is a weak collection, which JSON cannot hold'
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    return 'is binary data, which JSON cannot hold: make it base64'
  }
  if (typeof (value as { then?: unknown }).then === 'function') return 'is a promise: await it first'
  return undefined
}
