// The job of the chaos run, as kitchen_sink.c, served over HTTP. Arguments: the job's name, the address and port to listen on.
// From the environment: STACKSHIFT_URL, STACKSHIFT_API_KEY, CHAOS_EVIDENCE, CHAOS_ACTOR.

import { AsyncLocalStorage } from 'node:async_hooks'
import { spawn } from 'node:child_process'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { NonRetryableError, StackShift } from '../../sdk/typescript/dist/esm/index.js'

const [job, host, port] = process.argv.slice(2)
const actor = process.env.CHAOS_ACTOR
const fences = new AsyncLocalStorage()
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

// The evidence goes through a psql of our own: each statement is answered by the number that it returns.
const psql = spawn('psql', ['-X', '-q', '-A', '-t', process.env.CHAOS_EVIDENCE], { stdio: ['pipe', 'pipe', 'inherit'] })
const asked = []
createInterface({ input: psql.stdout }).on('line', line => asked.shift()(Number(line)))
psql.on('exit', () => process.exit(70))
const quoted = value => value === null || value === undefined ? 'null' : `'${String(value).replaceAll("'", "''")}'`

/** Writes down that this happens, and answers how often it has for this run. */
function note(run, kind, step, value) {
  const what = [run.id, kind, step].map(quoted)
  const rest = [run.attempt, actor, process.pid, fences.getStore(), value].map(quoted)
  return new Promise(resolve => {
    asked.push(resolve)
    psql.stdin.write(`insert into hc.effect (run, kind, step, attempt, actor, pid, fence, value) values (${[...what, ...rest]}) `
      + `returning 1 + (select count(*) from hc.effect where run = ${what[0]} and kind = ${what[1]} and step = ${what[2]});\n`)
  })
}

const tried = { maxAttempts: 20, backoff: { initial: '50ms', max: '200ms' } } // a step with tries of its own
const operations = {
  step: ({ run, step }, op) => step.run(op.name, async () => {
    await note(run, 'step', op.name)
    await pause(op.ms)
    return op.v
  }),
  flaky: ({ run, step }, op) => step.run(op.name, tried, async () => {
    const calls = await note(run, 'step', op.name)
    if (calls < op.tries) throw new Error(`call ${calls} fails`)
    return op.v
  }),
  hang: ({ run, step }, op) => step.run(op.name, { ...tried, timeout: op.timeout }, async () => {
    if (await note(run, 'step', op.name) === 1) await pause(op.ms)
    return op.v
  }),
  par: async (context, op) => (await Promise.all(op.steps.map(one => operations.step(context, one)))).reduce((a, b) => a + b, 0),
  burst: async (context, { name, count, width, v }) => {
    let sum = 0
    for (let i = 0; i < count; i += width) {
      const steps = Array.from({ length: Math.min(width, count - i) }, (_, n) => ({ name: `${name}.${i + n}`, v: v + i + n, ms: 0 }))
      sum += await operations.par(context, { steps })
    }
    return sum
  },
  big: async ({ run, step }, op) => (await step.run(op.name, async () => {
    await note(run, 'step', op.name)
    return 'x'.repeat(op.bytes)
  })).length,
  bad: ({ run, step }, op) => step.run(op.name, async () => {
    await note(run, 'step', op.name)
    return 1n // JSON has none
  }),
  wait: async ({ run, step }, op) => {
    const event = await step.waitForEvent(op.event,
      { name: op.name, correlationKey: op.key, timeout: op.timeout, onTimeout: op.timeout ? 'continue' : 'fail' })
    await note(run, 'wait', op.name, event.timedOut ? 'timed out' : event.id)
    return op.timeout ? 1 : event.payload.v
  },
  any: async ({ run, step }, op) => {
    const event = await step.waitForAny([{ event: op.event, correlationKey: op.key }, { event: op.event, correlationKey: op.other }],
      { name: op.name })
    await note(run, 'wait', op.name, event.id)
    return event.payload.v
  },
  sleep: async ({ step }, op) => { await step.sleep(op.name, op.for); return 1 },
  child: ({ step }, op) => step.runJob(op.job, op.payload, { name: op.name, maxAttempts: 50 }),
  count: async ({ state, payload }) => { await state.increment(payload.counter, payload.by); return 1 },
  setget: async ({ state }, op) => { await state.set(op.key, op.v); return (await state.get(op.key)).value },
  locked: async (context, op) => {
    const locked = await context.state.lock(op.key, { ttl: '10s' })
    await operations.step(context, op)
    if (locked) await context.state.unlock(op.key)
    return op.v
  },
  send: async ({ step, payload }, op) => { await step.sendEvent(op.event, op, { correlationKey: payload.key }); return 1 },
  fail: ({ attempt }, op) => {
    if (attempt < op.until) throw new Error(`attempt ${attempt} fails`)
    return 1
  },
  crash: async ({ run }, op) => {
    if (await note(run, 'crash', op.name) === 1) process.abort()
    return 1
  },
  doom: () => { throw new NonRetryableError('doom') }
}

const stackshift = new StackShift({ apiKey: process.env.STACKSHIFT_API_KEY })
stackshift.job(job, { maxAttempts: 50, backoff: { initial: '100ms', max: '1s' } }, async context => {
  let sum = 0
  await note(context.run, 'enter')
  for (const op of context.payload.ops) sum = (sum * 31 + await operations[op.op](context, op)) % 1000003
  await note(context.run, 'leave')
  return sum
})

// A call's id ends in the fence of its lease: so the evidence knows under which lease a function was called.
const handler = stackshift.nodeHandler()
createServer((request, response) => {
  fences.run(/_(\d+)$/.exec(request.headers['webhook-id'] ?? '')?.[1], () => handler(request, response))
}).listen(Number(port), host)
