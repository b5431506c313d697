// The jobs of docs/conformance.md, for `durable conformance`. Takes the built SDK; STACKSHIFT_SIGNING_SECRET is the secret.
//
// Usage: node conformance.mjs [PORT]     prints the endpoint's URL, and serves until it is ended

import { NonRetryableError, RetryAfterError, StackShift } from '../dist/esm/index.js'

const stackshift = new StackShift()
const job = (name, handler) => stackshift.job(`conformance.${name}`, handler)

job('steps', async ({ step }) => {
  const a = await step.run('a', () => 1)
  const b = await step.run('b', () => 2)
  return a + b + await step.run('c', () => 3)
})
job('echo', async ({ payload }) => payload)
job('run', async ({ run, attempt }) => ({ id: run.id, job: run.job, attempt, queueName: run.queueName, tags: run.tags }))
job('nothing', async () => {})
job('repeat-names', async ({ step }) => [
  await step.run('n', () => 1), await step.run('n', () => 2), await step.run('n', () => 3)
])
job('parallel', async ({ step }) => {
  const all = await Promise.all([step.run('p1', () => 1), step.run('p2', () => 2), step.run('p3', () => 3)])
  return all.reduce((sum, n) => sum + n)
})
job('log', async ({ step, log, progress }) => {
  log.info('hello', { n: 1 })
  progress({ half: true })
  return step.run('a', () => 1)
})

job('wait', async ({ payload, step }) => {
  const event = await step.waitForEvent('conformance.go', { correlationKey: payload.key, timeout: '24h', onTimeout: 'continue' })
  return event.timedOut ? { timedOut: true } : { timedOut: false, payload: event.payload }
})
job('wait-any', async ({ step }) => {
  const event = await step.waitForAny([{ event: 'conformance.a', correlationKey: 'k' }, { event: 'conformance.b' }])
  return event.name
})
job('sleep', async ({ step }) => {
  await step.sleep('1h')
  await step.sleepUntil(new Date('2030-01-01T00:00:00Z'))
  return 'awake'
})
job('child', async ({ step }) => {
  try {
    return { child: await step.runJob('conformance.echo', { n: 7 }) }
  } catch (error) {
    return { error: error.message }
  }
})
job('children', ({ step }) => Promise.all([1, 2, 3].map(n => step.runJob('conformance.echo', { n }, { name: `c${n}` }))))
job('race', async ({ step }) => {
  const first = await Promise.race([
    step.waitForEvent('conformance.go').then(() => 'event'),
    step.sleep('1h').then(() => 'sleep')
  ])
  return step.run('after', () => first)
})
job('send-event', async ({ step }) => {
  const { id } = await step.sendEvent('conformance.sent', { n: 1 }, { correlationKey: 'k', idempotencyKey: 'once' })
  return id
})

job('state', async ({ state }) => {
  await state.set('conformance.k', { n: 1 })
  const { value } = await state.get('conformance.k')
  const number = await state.increment('conformance.n', 5)
  const deleted = await state.delete('conformance.k')
  const locked = await state.lock('conformance.l', { ttl: '1m' })
  const unlocked = await state.unlock('conformance.l')
  return { value, number, deleted, locked, unlocked }
})
job('state-refused', async ({ state, step }) => {
  let code = 'none'
  try {
    await state.set('conformance.k', 1, { ifVersion: 7 })
  } catch (error) {
    code = error.code
  }
  return step.run('after', () => code)
})

job('error', async ({ step, attempt }) => step.run('try', () => {
  if (attempt === 1) throw new Error('not yet')
  return attempt
}))
job('non-retryable', async () => { throw new NonRetryableError('never') })
job('retry-after', async () => { throw new RetryAfterError('later', '30s') })
job('caught', async ({ step }) => {
  let message = 'none'
  try {
    await step.run('bad', () => { throw new Error('bad') })
  } catch (error) {
    message = error.message
  }
  return step.run('good', () => message)
})
job('step-retry', async ({ payload, step }) => {
  try {
    const tries = await step.run('flaky', { maxAttempts: 3, backoff: { initial: '2s' } }, ({ attempt }) => {
      if (attempt < payload.succeedsAt) throw new Error(`flaky ${attempt}`)
      return attempt
    })
    return { tries }
  } catch (error) {
    return { error: error.message }
  }
})
job('not-json', async ({ step }) => step.run('bad', () => 1n))
job('nested', async ({ step }) => step.run('outer', () => step.run('inner', () => 1)))

job('slow', async ({ payload, step }) => {
  await step.run('slow', ({ signal }) => new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, payload.ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      reject(signal.reason)
    })
  }))
  await step.run('after', () => 1)
  return 'done'
})
job('large', async ({ payload, step }) => (await step.run('large', () => 'x'.repeat(payload.bytes))).length)
job('large-result', async ({ payload }) => 'x'.repeat(payload.bytes))

const serving = await stackshift.serve({ port: Number(process.argv[2] ?? 0), name: 'conformance' })
console.log(serving.url)
