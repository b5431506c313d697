// Signatures as Standard Webhooks has them: HMAC-SHA-256 over id, time and body, with a secret that only the fleet and
// this program know. During a rotation there are several secrets and several signatures; one pair that fits is enough.

import { StackShiftError } from './errors.js'
import type { Platform } from './platform.js'

/** The headers that a signed request has. */
export interface Signed {
  id: string | undefined
  timestamp: string | undefined
  signature: string | undefined
}

/** Is `signature` that of `message` under `secret`? In constant time. */
export type Checker = (secret: Uint8Array, signature: Uint8Array, message: Uint8Array[]) => boolean | Promise<boolean>

interface SubtleLike {
  importKey(format: 'raw', key: Uint8Array, algorithm: { name: 'HMAC', hash: 'SHA-256' }, extractable: boolean,
    usages: ['verify']): Promise<unknown>
  verify(algorithm: 'HMAC', key: unknown, signature: Uint8Array, data: Uint8Array): Promise<boolean>
}

const SECONDS_OFF_MAX = 5 * 60
const SIGNATURES_MAX = 16

/** The secrets in a text: `whsec_…`, several separated by spaces or commas. */
export function secretsOf(text: string): Uint8Array[] {
  const secrets = text.split(/[\s,]+/).filter(part => part !== '').map(part => {
    const secret = fromBase64(part.startsWith('whsec_') ? part.slice(6) : part)
    if (secret === undefined || secret.length === 0) {
      throw new StackShiftError('invalid_argument', 400, 'a signing secret is not of the form whsec_<base64>')
    }
    return secret
  })
  if (secrets.length === 0) throw new StackShiftError('invalid_argument', 400, 'the signing secret is empty')
  return secrets
}

/** The check that this platform is best at. */
export function checkerOf(node: Platform): Checker {
  const { crypto } = node
  if (crypto !== undefined) {
    return (secret, signature, message) => {
      const hmac = crypto.createHmac('sha256', secret)
      for (const part of message) hmac.update(part)
      const right = hmac.digest()
      return right.length === signature.length && crypto.timingSafeEqual(right, signature)
    }
  }
  const { subtle } = (globalThis as unknown as { crypto: { subtle: SubtleLike } }).crypto
  const keys = new WeakMap<Uint8Array, Promise<unknown>>()
  return async (secret, signature, message) => {
    let key = keys.get(secret)
    if (key === undefined) {
      key = subtle.importKey('raw', secret, { name: 'HMAC', hash: 'SHA-256' }, false, ['verify'])
      keys.set(secret, key)
    }
    return subtle.verify('HMAC', await key, signature, concat(message)) // compares in constant time
  }
}

/** Why the request is not to be trusted; undefined: it is. `now` in milliseconds. */
export async function distrust(signed: Signed, body: Uint8Array, secrets: readonly Uint8Array[], check: Checker,
  now = Date.now()): Promise<string | undefined> {
  const { id, timestamp, signature } = signed
  if (id === undefined || timestamp === undefined || signature === undefined) {
    return 'the request is not signed: webhook-id, webhook-timestamp and webhook-signature are needed'
  }
  const seconds = /^\d{1,12}$/.test(timestamp) ? Number(timestamp) : NaN
  if (!(Math.abs(now / 1000 - seconds) <= SECONDS_OFF_MAX)) {
    return `webhook-timestamp is more than ${SECONDS_OFF_MAX / 60} minutes off: is the clock right?`
  }
  const message = [new TextEncoder().encode(`${id}.${timestamp}.`), body]
  for (const part of signature.split(' ').slice(0, SIGNATURES_MAX)) {
    const bytes = part.startsWith('v1,') ? fromBase64(part.slice(3)) : undefined
    if (bytes === undefined) continue
    for (const secret of secrets) if (await check(secret, bytes, message)) return undefined
  }
  return 'the signature does not fit any signing secret'
}

function fromBase64(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.from(atob(text), char => char.charCodeAt(0))
  } catch {
    return undefined
  }
}

function concat(parts: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
