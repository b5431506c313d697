// The handler protocol, version 1, as types: what a worker sends, and what is committed or answered.

import type { ErrorJson } from './errors.js'

export const PROTOCOL = 1

/** Names of jobs, steps, events and so on. */
export const NAME = /^[A-Za-z0-9_.:/@-]{1,200}$/

/** What a step is remembered as. */
export type Kind = 'step' | 'state' | 'send_event' | 'wait_event' | 'wait_any' | 'sleep' | 'child'

/** One thing that a run remembers. With neither result, error nor ref it is to be done again, in its old place. */
export interface Remembered {
  name: string
  kind: Kind | (string & {})
  result?: unknown
  error?: ErrorJson
  ref?: string
}

export interface CallRequest {
  protocol: number
  run: {
    id: string
    job: string
    queueName: string
    attempt: number
    maxAttempts: number
    createdAt: string
    namespace: string
    version: string | null
    tags: Record<string, string>
  }
  payload: unknown
  steps: Remembered[]
  tries?: Record<string, number>
  commit: { url: string, token: string, maxRunMs?: number } | null
  traceparent?: string | null
}

export interface OpResult {
  result?: unknown
  error?: ErrorJson
}

/** What came of one run's part of a commit. */
export type Committed =
  | { results: OpResult[], cancelled?: boolean, leaseUntil?: string }
  | { code: string, message?: string }

/** A finished step, as the text of its op. `result` is JSON already. */
export function stepOp(name: string, result: string | undefined, error: ErrorJson | undefined, startedAt: Date): string {
  const outcome = error === undefined ? `"result":${result}` : `"error":${JSON.stringify(error)}`
  return `{"op":"step","name":${JSON.stringify(name)},${outcome},"startedAt":"${startedAt.toISOString()}",`
    + `"finishedAt":"${new Date().toISOString()}"}`
}
