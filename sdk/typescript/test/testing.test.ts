// The testing module: jobs in memory, with a clock that jumps.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NonRetryableError, StackShift, type Kept } from '@stackshift-cloud/jobs'
import { testJob } from '@stackshift-cloud/jobs/testing'

const stackshift = new StackShift()

const onboarding = stackshift.job<{ userId: string }>('onboarding', async ({ payload, step, state, log }) => {
  const user = await step.run('create-user', () => ({ id: payload.userId, email: 'real@example.com' }))
  await step.run('send-mail', { maxAttempts: 3, backoff: { initial: '10s' } }, () => user.email)
  const event = await step.waitForEvent<{ ok: boolean }>('email.verified',
    { correlationKey: `user:${payload.userId}`, timeout: '24h', onTimeout: 'continue' })
  if (event.timedOut) return { onboarded: false, email: user.email }
  await step.sleep('before-the-survey', '3d')
  log.info('onboarded', { user: user.id })
  await step.sendEvent('user.onboarded', { id: user.id })
  await state.increment('onboarded')
  return { onboarded: true, email: user.email }
})

test('a run goes through its events, sleeps and tries by a clock of its own', async () => {
  let tries = 0
  const run = await testJob(onboarding, {
    payload: { userId: '7' }, now: '2026-05-06T09:00:00Z',
    steps: { 'create-user': { id: '7', email: 'ada@example.com' }, 'send-mail': () => { if (++tries < 3) throw new Error('busy') } },
    events: [
      { name: 'email.verified', correlationKey: 'user:8', payload: { ok: false } },
      { name: 'email.verified', correlationKey: 'user:7', payload: { ok: true }, after: '2h' }
    ],
    state: { onboarded: 41 }
  })
  const begin = Date.now()
  assert.deepEqual([run.status, run.result, run.error], ['completed', { onboarded: true, email: 'ada@example.com' }, undefined])
  assert.equal(run.now.toISOString(), '2026-05-09T11:00:00.000Z') // the tries' 10 s and 20 s were over by then
  assert.equal(run.elapsedMs, 74 * 3_600_000)
  assert.deepEqual(run.steps.map(({ name }) => name), ['create-user', 'send-mail', 'email.verified', 'before-the-survey', 'send:user.onboarded', 'state.increment'])
  assert.deepEqual(run.sent, [{ name: 'user.onboarded', payload: { id: '7' }, correlationKey: null }])
  assert.deepEqual(run.state, { onboarded: 42 })
  assert.deepEqual(run.logs, [{ level: 'info', message: 'onboarded', fields: { user: '7' } }])
  assert.deepEqual([run.attempts, run.calls, tries], [1, 5, 3])
  assert.ok(Date.now() - begin < 1000)
})

test('a wait times out when nothing comes in time', async () => {
  const run = await testJob(onboarding, { payload: { userId: '7' }, events: [{ name: 'email.verified', correlationKey: 'user:7', after: '25h' }] })
  assert.deepEqual(run.result, { onboarded: false, email: 'real@example.com' })
  assert.equal(run.elapsedMs, 24 * 3_600_000)
})

test('fail, cancel, and a wait without end end as they should', async () => {
  const wait = (onTimeout: 'fail' | 'cancel', timeout?: string) => testJob(
    stackshift.job(`wait-${onTimeout}-${timeout ?? ''}`, ({ step }) => step.waitForAny(['a', 'b'], { onTimeout, timeout })))
  const failed = await wait('fail', '1m')
  assert.deepEqual([failed.status, failed.error!.name, failed.error!.message], ['failed', 'WaitTimeoutError', 'no event a or b came within 1m'])
  assert.equal((await wait('cancel', '1m')).status, 'cancelled')
  const waiting = await wait('fail')
  assert.deepEqual([waiting.status, waiting.waitingFor!.kind, waiting.waitingFor!.event], ['waiting', 'event', 'a'])
})

test('attempts are made after the backoff, and children are run or stood in for', async () => {
  let tries = 0
  const child = stackshift.job('child', async ({ payload, step }) => { await step.sleep('1h'); return payload.n * 2 })
  const parent = stackshift.job('parent', { maxAttempts: 3, backoff: { initial: '1m' } }, async ({ step }) => {
    const a: number = await step.runJob<number>('child', { n: 21 })
    const b: string = await step.runJob<string>('report')
    if (++tries < 3) throw new Error('not yet')
    return [a, b]
  })
  const run = await testJob(parent, { jobs: { child, report: () => 'text' } })
  assert.deepEqual([run.status, run.result, run.attempts, run.elapsedMs], ['completed', [42, 'text'], 3, 3_600_000 + 60_000 + 120_000])
  assert.deepEqual(run.children, [{ job: 'child', payload: { n: 21 } }, { job: 'report', payload: {} }])
  await assert.rejects(testJob(parent), /say in jobs what it gives, as \{ 'child': result \}/)
  const failing = await testJob(parent, { jobs: { child, report: () => { throw new NonRetryableError('no report') } } })
  assert.deepEqual([failing.status, failing.error!.message], ['failed', 'no report'])
})

test('several things are waited for side by side, and the first goes on', async () => {
  const nap = stackshift.job<{ minutes: number }>('nap', async ({ payload, step }) => {
    await step.sleep(`${payload.minutes}m`)
    return payload.minutes
  })
  const all = stackshift.job('all', async ({ step }) => Promise.all([
    step.runJob(nap, { minutes: 30 }),
    step.runJob(nap, { minutes: 10 }, { name: 'short' }),
    step.sleep('20m'),
    step.waitForEvent('late', { timeout: '15m', onTimeout: 'continue' })
  ]))
  const run = await testJob(all, { payload: {}, jobs: { nap } })
  assert.deepEqual([run.status, run.elapsedMs], ['completed', 30 * 60_000])
  assert.deepEqual(run.steps.map(({ name }) => name), ['short', 'late', 'sleep', 'nap'])
  assert.deepEqual((run.result as unknown[])[0], 30)

  const race = stackshift.job('race', async ({ step }) => {
    const first = await Promise.race([
      step.waitForEvent<string>('paid').then(({ payload }) => payload),
      step.sleep('reminder', '1h').then(() => 'too late')
    ])
    await step.sleep('after', '2h') // the reminder's time is over in between: nobody asks
    return first
  })
  const paid = await testJob(race, { payload: {}, events: [{ name: 'paid', payload: 'paid', after: '10m' }] })
  assert.deepEqual([paid.result, paid.elapsedMs], ['paid', 130 * 60_000])
  assert.deepEqual((await testJob(race, { payload: {} })).result, 'too late')
})

test('state is remembered, expires by the clock, and locks are kept', async () => {
  const job = stackshift.job('stateful', async ({ state, step }) => {
    await state.set('short', 1, { expiresAt: '2026-01-01T01:00:00Z' })
    const locked = [await state.lock('l', { ttl: '30m' }), await state.lock('l'), await state.unlock('l'), await state.unlock('l')]
    const before = await state.get('short')
    await step.sleep('2h')
    return [locked, before?.value, await state.get('short'), await state.delete('short'), await state.set('x', 1, { ifVersion: 5 }).catch(e => e.code)]
  })
  const run = await testJob(job, { now: '2026-01-01T00:00:00Z' })
  assert.deepEqual(run.result, [[true, true, true, false], 1, null, false, 'conflict'])
})

test('with replay often, a handler that takes another way is found', async () => {
  let n = 0
  const job = stackshift.job('unsteady', async ({ step }) => {
    for (let i = 0; i < 3; i++) await step.run(`step-${n++}`, () => 1)
  })
  assert.equal((await testJob(job)).status, 'completed')
  const run = await testJob(job, { replay: 'often' })
  assert.deepEqual([run.status, run.waitingFor!.kind, run.waitingFor!.expected], ['waiting', 'version', 'step-3'])
  const steady = await testJob(onboarding, { payload: { userId: '7' }, replay: 'often' })
  assert.deepEqual([steady.status, steady.calls], ['completed', 4])
})

test('types flow through', async () => {
  interface User { id: number, born: Date, email?: string, greet(): string }
  type Expect<A, B> = [A, B] extends [B, A] ? true : never
  const exact: [
    Expect<Kept<User>, { id: number, born: string, email?: string }>,
    Expect<Kept<undefined>, null>,
    Expect<Kept<void>, null>,
    Expect<Kept<[Date, number?]>, [string, (number | null)?]>,
    Expect<Kept<Date[] | string>, string[] | string>,
    Expect<Kept<unknown>, unknown>
  ] = [true, true, true, true, true, true]
  assert.equal(exact.length, 6)
  const job = stackshift.job('types', async ({ step, payload }) => {
    payload.anything.goes?.toString() // without a type, the payload can be anything
    const user = await step.run('user', (): User => ({ id: 1, born: new Date(0), greet: () => 'hi' })).catch(() => undefined)
    const born: string | undefined = user?.born
    // @ts-expect-error a Date does not come back from JSON
    const date: Date | undefined = user?.born
    const event = await step.waitForEvent<{ a: number }>('e', { timeout: '1s', onTimeout: 'continue' })
    // @ts-expect-error it may have timed out
    void (() => event.payload.a)
    return [born, date, event.timedOut]
  })
  assert.equal((await testJob(job, { payload: { anything: { goes: 1 } } })).error!.name, 'MisuseError')
})
