// Calls of the API: what they send, what they give, and how they are repeated.

import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { StackShift, StackShiftError, type Fetch } from '@stackshift-cloud/jobs'
import { nobodyThere, pause } from './support/app.js'
import { Fleet, type ApiAnswer, type ApiRequest } from './support/fleet.js'

let fleet: Fleet
let stackshift: StackShift
const requests: ApiRequest[] = []

before(async () => { fleet = await Fleet.start() })
after(async () => { await fleet.stop() })
beforeEach(() => {
  requests.length = 0
  stackshift = new StackShift({ apiKey: 'key', baseUrl: `${fleet.url}/`, retryFor: '3s', timeout: '1s' })
})

/** From now on: in turn; the last one stays. */
function answering(...answers: ApiAnswer[]): void {
  requests.length = 0
  fleet.api = request => {
    requests.push(request)
    return answers[Math.min(requests.length, answers.length) - 1]!
  }
}

const RUN = { id: 'r-1', job: 'j', status: 'queued', created: true }
const problem = (status: number, code: string, detail = 'why', headers?: Record<string, string>): ApiAnswer => ({
  status, body: { type: 'about:blank', title: 't', status, detail, code }, headers
})

describe('starts', () => {
  test('send what they are given, as the API reads it', async () => {
    answering({ status: 201, body: RUN })
    const run = await stackshift.start('j', { a: 1 }, {
      queueName: 'q', idempotencyKey: 'k', idempotencyTtl: 90_000, onTerminal: 'restart', maxAttempts: 7, backoff: { initial: '1s' },
      scheduledAt: new Date(0), priority: -5, concurrencyKey: 'c', timeout: '1h', tags: { plan: 'trial' }, debounce: { key: 'd', delay: 500 }
    })
    assert.deepEqual(run, RUN)
    assert.deepEqual(requests[0]!.body, {
      job: 'j', payload: { a: 1 }, queueName: 'q', idempotencyKey: 'k', idempotencyTtl: '90000ms', onTerminal: 'restart', maxAttempts: 7,
      backoff: { initial: '1s' }, scheduledAt: '1970-01-01T00:00:00.000Z', priority: -5, concurrencyKey: 'c', timeout: '1h',
      tags: { plan: 'trial' }, debounce: { key: 'd', delay: '500ms' }
    })
    assert.equal(requests[0]!.headers['content-type'], 'application/json')
  })

  test('are repeated with one key of their own, and are created then, whoever answered', async () => {
    answering({ status: 0, hangUp: true }, problem(503, 'unavailable'), { status: 200, body: { ...RUN, created: false } })
    assert.equal((await stackshift.start('j')).created, true)
    const keys = requests.map(({ body }) => (body as { idempotencyKey: string }).idempotencyKey)
    assert.equal(keys.length, 3)
    assert.match(keys[0]!, /^sdk:[0-9a-f-]{36}$/)
    assert.deepEqual(keys, Array(3).fill(keys[0]))
    assert.deepEqual(Object.keys(requests[0]!.body as object).sort(), ['idempotencyKey', 'idempotencyTtl', 'job'])
  })

  test('with the user\'s key say what the server says', async () => {
    answering({ status: 200, body: { ...RUN, created: false } })
    assert.equal((await stackshift.start('j', {}, { idempotencyKey: 'mine' })).created, false)
    answering(problem(409, 'idempotency_conflict', 'key mine is known with another payload'))
    await assert.rejects(stackshift.start('j', {}, { idempotencyKey: 'mine' }), (error: unknown) => {
      assert.ok(error instanceof StackShiftError)
      assert.deepEqual([error.code, error.status, error.detail, error.message, error.name],
        ['idempotency_conflict', 409, 'key mine is known with another payload', 'key mine is known with another payload', 'StackShiftError'])
      return true
    })
  })

  test('of many go in one request, each with a key', async () => {
    answering({ status: 201, body: { runs: [{ id: 'a', created: false }, { id: 'b', created: false }] } })
    const runs = await stackshift.startMany([{ job: 'j', payload: 1 }, { job: 'j', payload: 2, idempotencyKey: 'mine' }])
    assert.deepEqual(runs, [{ id: 'a', created: true }, { id: 'b', created: false }])
    const { runs: sent } = requests[0]!.body as { runs: Record<string, unknown>[] }
    assert.match(String(sent[0]!.idempotencyKey), /^sdk:.*:0$/)
    assert.equal(sent[1]!.idempotencyKey, 'mine')
  })

  test('through a queue and through a job know their queue and their types', async () => {
    answering({ status: 201, body: RUN })
    const job = stackshift.job('typed', ({ payload }: { payload: { n: number } }) => payload.n * 2)
    await stackshift.queue('q').enqueue(job, { n: 1 })
    await job.start({ n: 2 })
    assert.deepEqual(requests.map(({ body }) => { const { job, payload, queueName } = body as Record<string, unknown>; return [job, payload, queueName] }),
      [['typed', { n: 1 }, 'q'], ['typed', { n: 2 }, undefined]])
    assert.throws(() => stackshift.job('typed', () => 1), /job typed is there already/)
    assert.throws(() => stackshift.job('no name', () => 1), /'no name' is not a name/)
  })

  test('refuse what JSON cannot hold, and arguments that are wrong, without a request', async () => {
    answering({ status: 201, body: RUN })
    await assert.rejects(stackshift.start('j', { big: 1n }), { code: 'invalid_argument', message: /the payload of job "j": big is a bigint/ })
    await assert.rejects(stackshift.start('j', {}, { timeout: 'soon' }), { code: 'invalid_argument', message: /timeout 'soon' is not a duration/ })
    await assert.rejects(stackshift.start('j', {}, { scheduledAt: 'never' }), { code: 'invalid_argument', message: /scheduledAt 'never' is not a time/ })
    await assert.rejects(new StackShift({ baseUrl: fleet.url }).start('j'), { code: 'unauthorized', message: /STACKSHIFT_API_KEY/ })
    assert.equal(requests.length, 0)
  })
})

describe('repeats', () => {
  test('honour Retry-After', async () => {
    answering(problem(429, 'rate_limited', 'slow', { 'retry-after': '0.4' }), { status: 200, body: RUN })
    const begin = Date.now()
    await stackshift.runs.get('r-1')
    assert.ok(Date.now() - begin >= 390)
  })

  test('end when the time for them is over, with the last reason', async () => {
    answering(problem(429, 'rate_limited', 'come back', { 'retry-after': '60' }))
    await assert.rejects(stackshift.runs.get('r-1'), { code: 'rate_limited', status: 429, retryAfterMs: 60_000 })
    assert.equal(requests.length, 1)
    const short = new StackShift({ apiKey: 'key', baseUrl: await nobodyThere(), retryFor: 200 })
    await assert.rejects(short.start('j'), (error: StackShiftError) => {
      assert.deepEqual([error.code, error.status], ['unavailable', 0])
      assert.match(error.message, /127\.0\.0\.1:\d+ did not answer: .*ECONNREFUSED/)
      assert.ok(error.cause instanceof Error)
      return true
    })
  })

  test('leave alone what cannot become right', async () => {
    for (const [status, code] of [[400, 'invalid_argument'], [401, 'unauthorized'], [404, 'not_found'], [500, 'internal']] as const) {
      answering(problem(status, code))
      await assert.rejects(stackshift.start('j'), { code, status })
      assert.equal(requests.length, 1)
    }
    answering({ status: 502, body: undefined }, { status: 404, body: undefined })
    await assert.rejects(stackshift.runs.get('r'), { code: 'not_found', status: 404, message: 'GET /v1/runs/r was answered with 404' })
  })

  test('of what would count twice happen only where it did not arrive', async () => {
    answering(problem(429, 'rate_limited', 'slow', { 'retry-after': '0' }), { status: 200, body: { key: 'n', value: 5, version: 1, expiresAt: null } })
    assert.equal(await stackshift.state.increment('n', 5), 5)
    for (const answer of [{ status: 0, hangUp: true }, problem(503, 'unavailable')]) {
      answering(answer)
      await assert.rejects(stackshift.state.increment('n'), { code: 'unavailable' })
      assert.equal(requests.length, 1)
    }
  })

  test('of a cancel whose answer was lost find what it did', async () => {
    answering({ status: 0, hangUp: true }, { status: 200, body: { ...RUN, status: 'cancelled' } })
    assert.equal((await stackshift.runs.cancel('r-1', { reason: 'no need' })).status, 'cancelled')
    assert.deepEqual(requests.map(({ method }) => method), ['POST', 'GET'])
    assert.deepEqual(requests[0]!.body, { reason: 'no need' })
    answering(problem(409, 'conflict', 'run r-1 has ended'))
    await assert.rejects(stackshift.runs.cancel('r-1'), { code: 'conflict', status: 409 })
    // The first one arrives after the look, and before it is said again.
    const conflict = { status: 409, body: { code: 'conflict', detail: 'the run has ended' } }
    answering({ status: 0, hangUp: true }, { status: 200, body: { ...RUN, status: 'running' } }, conflict,
      { status: 200, body: { ...RUN, status: 'cancelled' } })
    assert.equal((await stackshift.runs.cancel('r-1')).status, 'cancelled')
    // So does one of several whose answers were lost.
    const lost = [{ status: 0, hangUp: true }, { status: 200, body: { ...RUN, status: 'running' } }]
    answering(...lost, ...lost, ...lost, conflict, { status: 200, body: { ...RUN, status: 'cancelled' } })
    assert.equal((await stackshift.runs.cancel('r-1')).status, 'cancelled')
    answering(...lost, ...lost, ...lost, ...lost)
    await assert.rejects(stackshift.runs.cancel('r-1'), { code: 'unavailable' })
  })

  test('keep their connection', async () => {
    answering({ status: 200, body: RUN })
    const before = fleet.connections
    for (let i = 0; i < 10; i++) await stackshift.runs.get('r-1')
    assert.equal(fleet.connections - before, 1)
  })

  test('an answer that does not come is given up', async () => {
    fleet.api = async request => { requests.push(request); await pause(500); return { status: 200, body: RUN } }
    const hurried = new StackShift({ apiKey: 'key', baseUrl: fleet.url, timeout: 50, retryFor: 120 })
    await assert.rejects(hurried.runs.get('r-1'), { code: 'unavailable', message: /no answer within 50 ms/ })
  })

  test('an AbortSignal ends a call: before it, under way, and between tries', async () => {
    fleet.api = async request => { requests.push(request); await pause(300); return { status: 200, body: RUN } }
    await assert.rejects(stackshift.start('j', {}, { signal: AbortSignal.abort(new Error('stop')) }), /stop/)
    assert.equal(requests.length, 0)
    await assert.rejects(stackshift.start('j', {}, { signal: AbortSignal.timeout(30) }), { name: 'TimeoutError' })
    answering(problem(503, 'unavailable', 'busy', { 'retry-after': '2' }))
    const controller = new AbortController()
    setTimeout(() => controller.abort(new Error('enough')), 50)
    await assert.rejects(stackshift.runs.get('r', { signal: controller.signal }), /enough/)
  })

  test('a fetch of the user\'s is used, with the same rules', async () => {
    answering({ status: 0, hangUp: true }, problem(503, 'unavailable', 'x', { 'retry-after': '0' }), { status: 201, body: RUN })
    let calls = 0
    const own: Fetch = (url, init) => { calls++; return fetch(url, init) }
    const other = new StackShift({ apiKey: 'key', baseUrl: fleet.url, fetch: own })
    assert.equal((await other.start('j')).id, 'r-1')
    assert.equal(calls, 3)
    const nobody = new StackShift({ apiKey: 'key', baseUrl: await nobodyThere(), fetch: own, retryFor: 100 })
    await assert.rejects(nobody.state.increment('n'), { code: 'unavailable', message: /ECONNREFUSED/ })
    fleet.api = async () => { await pause(300); return { status: 200, body: RUN } }
    await assert.rejects(other.runs.get('r', { signal: AbortSignal.timeout(30) }), { name: 'TimeoutError' })
  })
})

describe('runs, state, schedules, queues', () => {
  test('lists and histories', async () => {
    answering({ status: 200, body: { runs: [RUN], nextCursor: 'c2' } })
    assert.deepEqual(await stackshift.runs.list({ status: 'failed', tag: { plan: 'trial', a: 'b' }, since: new Date(0), limit: 5, cursor: 'c1' }),
      { runs: [RUN], nextCursor: 'c2' })
    assert.equal(requests[0]!.query.toString(), 'status=failed&tag=plan%3Atrial&tag=a%3Ab&since=1970-01-01T00%3A00%3A00.000Z&limit=5&cursor=c1')
    answering({ status: 200, body: { timeline: [{ kind: 'started' }], nextCursor: 'more' } }, { status: 200, body: { timeline: [{ kind: 'completed' }], nextCursor: null } })
    assert.deepEqual((await stackshift.runs.timeline('r/1')).map(({ kind }) => kind), ['started', 'completed'])
    assert.deepEqual(requests.map(({ path, query }) => [path, query.get('cursor')]), [['/v1/runs/r%2F1/timeline', null], ['/v1/runs/r%2F1/timeline', 'more']])
  })

  test('result waits as long as it is told', async () => {
    answering({ status: 202, body: { status: 'running' } }, { status: 200, body: { status: 'completed', result: 7, error: null } })
    const outcome = await stackshift.runs.result<number>('r', { wait: '1m' })
    assert.equal(outcome.status === 'completed' && outcome.result, 7)
    assert.match(requests[0]!.query.get('wait')!, /^(30000|29\d{3})ms$/)
    answering({ status: 202, body: { status: 'waiting' } })
    assert.deepEqual(await stackshift.runs.result('r', { wait: 0 }), { status: 'waiting' })
    assert.equal(requests[0]!.query.get('wait'), null)
  })

  test('control', async () => {
    answering({ status: 200, body: RUN })
    await stackshift.runs.retry('r', { maxAttempts: 2 })
    await stackshift.runs.fork('r', { fromStep: 'charge', overrides: { payload: { a: 1 }, steps: { quote: 7 } } })
    await stackshift.runs.reschedule('r', '2026-05-06T09:00:00Z')
    await stackshift.runs.cancelAll({ job: 'j', dryRun: true })
    assert.deepEqual(requests.map(({ method, path, body }) => [method, path, body]), [
      ['POST', '/v1/runs/r/retry', { maxAttempts: 2 }],
      ['POST', '/v1/runs/r/fork', { fromStep: 'charge', overrides: { payload: { a: 1 }, steps: { quote: 7 } } }],
      ['POST', '/v1/runs/r/reschedule', { scheduledAt: '2026-05-06T09:00:00Z' }],
      ['POST', '/v1/runs/cancel', { job: 'j', dryRun: true }]
    ])
  })

  test('events have a key of their own', async () => {
    answering({ status: 0, hangUp: true }, { status: 202, body: { id: 'e', created: false } })
    assert.deepEqual(await stackshift.events.send('e', { a: 1 }, { correlationKey: 'c' }), { id: 'e', created: true })
    const [first, second] = requests.map(({ body }) => body as Record<string, unknown>)
    assert.match(String(first!.idempotencyKey), /^sdk:/)
    assert.deepEqual(first, second)
  })

  test('state', async () => {
    const value = { key: 'a b', value: { n: 1 }, version: 3, expiresAt: null }
    answering({ status: 200, body: value })
    assert.deepEqual(await stackshift.state.get('a b'), value)
    assert.equal((await stackshift.state.set('a b', { n: 1 }, { ifVersion: 2, expiresAt: new Date(0) })).version, 3)
    assert.equal(await stackshift.state.delete('a b'), true)
    assert.equal(await stackshift.state.lock('a b', { owner: 'me', ttl: '1m' }), true)
    assert.equal(await stackshift.state.unlock('a b', { owner: 'me' }), true)
    assert.deepEqual(requests.map(({ method, path, body }) => [method, path, body]), [
      ['GET', '/v1/state/a%20b', undefined], ['PUT', '/v1/state/a%20b', { value: { n: 1 }, expiresAt: '1970-01-01T00:00:00.000Z', ifVersion: 2 }],
      ['DELETE', '/v1/state/a%20b', undefined], ['POST', '/v1/state/a%20b/lock', { owner: 'me', ttl: '1m' }], ['POST', '/v1/state/a%20b/unlock', { owner: 'me' }]
    ])
    answering(problem(404, 'not_found'))
    assert.equal(await stackshift.state.get('x'), null)
    assert.equal(await stackshift.state.delete('x'), false)
  })

  test('a lock that is held is asked for again while there is time', async () => {
    answering(problem(409, 'conflict'))
    assert.equal(await stackshift.state.lock('l'), false)
    assert.equal(requests.length, 1)
    answering(problem(409, 'conflict'), problem(409, 'conflict'), { status: 200, body: {} })
    assert.equal(await stackshift.state.lock('l', { wait: '2s' }), true)
    assert.equal(await stackshift.state.unlock('l'), true)
    const owners = new Set(requests.map(({ body }) => (body as { owner: string }).owner))
    assert.equal(owners.size, 1)
  })

  test('schedules and queues', async () => {
    answering({ status: 200, body: { schedules: [], nextCursor: null } })
    await stackshift.schedules.set('nightly', { job: 'report', cron: '0 3 * * *', timezone: 'Europe/Berlin', payload: { a: 1 }, jitter: '5m', catchUp: 'none' })
    await stackshift.schedules.list()
    await stackshift.schedules.trigger('nightly')
    await stackshift.schedules.delete('nightly')
    await stackshift.queue('q').set({ concurrency: 5 })
    await stackshift.queue('q').pause()
    await stackshift.queue('q').resume()
    await stackshift.queue('q').redrive({ maxRuns: 3 })
    assert.equal(await stackshift.releaseKey('k'), true)
    assert.deepEqual(requests.map(({ method, path, body }) => [method, path, body]), [
      ['PUT', '/v1/schedules/nightly', { job: 'report', cron: '0 3 * * *', timezone: 'Europe/Berlin', catchUp: 'none', jitter: '5m', payload: { a: 1 } }],
      ['GET', '/v1/schedules', undefined], ['POST', '/v1/schedules/nightly/trigger', undefined], ['DELETE', '/v1/schedules/nightly', undefined],
      ['PUT', '/v1/queues/q', { concurrency: 5 }], ['POST', '/v1/queues/q/pause', undefined], ['POST', '/v1/queues/q/resume', undefined],
      ['POST', '/v1/queues/q/redrive', { maxRuns: 3 }], ['DELETE', '/v1/idempotency-keys/k', undefined]
    ])
  })
})
