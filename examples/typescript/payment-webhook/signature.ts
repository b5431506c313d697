// Signatures as payment services make them: `t=<seconds>,v1=<hex>`, HMAC-SHA-256 over `<seconds>.<body>`.

import { createHmac, timingSafeEqual } from 'node:crypto'

const SECONDS_OFF_MAX = 300

export function sign(secret: string, body: Buffer | string, seconds = Math.floor(Date.now() / 1000)): string {
  return `t=${seconds},v1=${digest(secret, seconds, body).toString('hex')}`
}

export function signatureIsGood(secret: string, header: string | undefined, body: Buffer): boolean {
  const [, seconds, hex] = /^t=(\d{1,12}),v1=([0-9a-f]{64})$/.exec(header ?? '') ?? []
  if (seconds === undefined || hex === undefined) return false
  if (Math.abs(Date.now() / 1000 - Number(seconds)) > SECONDS_OFF_MAX) return false
  return timingSafeEqual(Buffer.from(hex, 'hex'), digest(secret, Number(seconds), body))
}

function digest(secret: string, seconds: number, body: Buffer | string): Buffer {
  return createHmac('sha256', secret).update(`${seconds}.`).update(body).digest()
}
