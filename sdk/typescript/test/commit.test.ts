// The way to commit.url when it is not smooth: lost answers, lost leases, cancels, refusals, nobody there.

import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import { gate, nobodyThere, pause, serveJobs, until, type App, type Definitions } from './support/app.js'
import { Fleet } from './support/fleet.js'

let fleet: Fleet

before(async () => { fleet = await Fleet.start() })
after(async () => { await fleet.stop() })
beforeEach(() => {
  fleet.fault = () => undefined
  fleet.commits.length = 0
  fleet.bodies.length = 0
  fleet.maxRunMs = 300_000
})

async function withJobs(definitions: Definitions, act: (app: App) => Promise<void>, more: Parameters<typeof serveJobs>[2] = {}): Promise<void> {
  const app = await serveJobs(fleet, definitions, more)
  try {
    await act(app)
  } finally {
    await app.close({ grace: 0 })
  }
}

const counting = (): { calls: Record<string, number>, definitions: Definitions } => {
  const calls: Record<string, number> = {}
  const did = (name: string): number => calls[name] = (calls[name] ?? 0) + 1
  return {
    calls,
    definitions: {
      three: async ({ step, state }) => {
        const a = await step.run('a', () => did('a'))
        const n = await state.increment('three')
        const b = await step.run('b', () => did('b'))
        await step.sendEvent('done')
        return [a, n, b]
      }
    }
  }
}

test('a lost answer: the commit is said again, unchanged, and done once', async () => {
  const { calls, definitions } = counting()
  fleet.state.clear()
  await withJobs(definitions, async app => {
    fleet.fault = number => number % 2 === 1 ? 'lose' : undefined
    const answer = await fleet.call(app.url, fleet.run('three'))
    assert.deepEqual(answer.result, [1, 1, 1])
    assert.deepEqual(calls, { a: 1, b: 1 })
    assert.equal(fleet.bodies.length, 8)
    for (let i = 0; i < 8; i += 2) assert.equal(fleet.bodies[i], fleet.bodies[i + 1])
    assert.equal(fleet.sent.length, 1)
  })
})

test('503 and 429 are said again, after Retry-After', async () => {
  const { definitions } = counting()
  fleet.state.clear()
  await withJobs(definitions, async app => {
    const at: number[] = []
    fleet.fault = number => {
      at.push(Date.now())
      return number === 1 ? { status: 429, headers: { 'retry-after': '0.3' } } : number === 3 ? 503 : undefined
    }
    assert.equal((await fleet.call(app.url, fleet.run('three'))).status, 'completed')
    assert.ok(at[1]! - at[0]! >= 295, 'the header is honoured')
  })
})

test('a lost lease ends the handler: its signal aborts, nothing more is committed', async () => {
  const aborted = gate<unknown>()
  let went = false
  await withJobs({
    lost: async ({ step, signal }) => {
      signal.addEventListener('abort', () => aborted.open(signal.reason))
      await step.run('a', () => 1)
      went = true
    }
  }, async app => {
    const run = fleet.run('lost')
    fleet.fault = () => ({ each: { code: 'lease_lost' } })
    const answer = await fleet.call(app.url, run)
    assert.deepEqual([answer.status, answer.ops, answer.error!.name], ['failed', [], 'LeaseLost'])
    assert.match(String(await aborted.promise), /another worker/)
    await pause(20)
    assert.equal(went, false)
  })
})

test('a cancel is learned from a heartbeat: the signal aborts, onCancel is called, nothing more begins', async () => {
  const events: unknown[] = []
  await withJobs({
    slow: [{ onCancel: ({ payload }) => { events.push('onCancel', payload) } }, async ({ step, signal }) => {
      await step.run('long', () => new Promise(resolve => { signal.addEventListener('abort', () => { events.push('abort'); resolve('late') }) }))
      events.push('went on')
    }]
  }, async app => {
    const run = fleet.run('slow', { x: 1 })
    const call = fleet.call(app.url, run)
    await until(() => run.heartbeats >= 1) // while the step is long
    run.cancelled = true
    const answer = await call
    assert.deepEqual([answer.status, answer.ops, answer.error!.name], ['failed', [], 'Cancelled'])
    assert.deepEqual(events, ['abort', 'onCancel', { x: 1 }])
    assert.deepEqual(run.steps, [])
  }, { line: { heartbeatMs: 40 } })
})

test('the handler of a cancelled run that does not listen is left after a grace time', async () => {
  await withJobs({ deaf: ({ step }) => step.run('for-ever', () => new Promise(() => {})) }, async app => {
    const run = fleet.run('deaf', {}, { cancelled: true })
    assert.equal((await fleet.call(app.url, run)).error!.name, 'Cancelled')
  }, { line: { heartbeatMs: 40 }, call: { cancelGraceMs: 50 } })
})

test('heartbeats go on through the handler\'s own work, and carry its log', async () => {
  const own = gate()
  await withJobs({ own: async ({ log }) => { log.info('working'); await own.promise; return 1 } }, async app => {
    const run = fleet.run('own')
    const call = fleet.call(app.url, run)
    await until(() => run.logs.length > 0)
    assert.deepEqual(run.logs.map(({ message }) => message), ['working'])
    own.open()
    assert.equal((await call).status, 'completed')
    assert.equal(run.logs.length, 1)
  }, { line: { heartbeatMs: 40 } })
})

test('where the token is not known any more, that call carries its ops in its answer; the next one commits', async () => {
  const { calls, definitions } = counting()
  fleet.state.clear()
  fleet.shown.length = 0
  await withJobs(definitions, async app => {
    const run = fleet.run('three')
    fleet.fault = number => number === 1 ? { each: { code: 'unauthorized', message: 'the token is none of ours' } } : undefined
    const first = await fleet.call(app.url, run)
    assert.deepEqual([first.status, first.ops.map(({ name }) => name)], ['continue', ['a']])
    const second = await fleet.call(app.url, run)
    assert.deepEqual([second.status, second.result, second.ops], ['completed', [1, 1, 1], []])
    assert.deepEqual(calls, { a: 1, b: 1 })
    assert.equal(fleet.shown.at(-1), `Bearer ${run.token}`)
  })
})

test('refused ops fail the run, once', async () => {
  const failures: string[] = []
  await withJobs({
    big: [{ onFailure: ({ error }) => { failures.push(error.message) } }, async ({ step }) => { await step.run('big', () => 'x'.repeat(100)) }]
  }, async app => {
    fleet.fault = () => ({ each: { code: 'payload_too_large', message: 'result of step big has 102 bytes; the limit is 100' } })
    const run = fleet.run('big')
    const answer = await fleet.call(app.url, run)
    assert.deepEqual([answer.status, answer.ops, answer.error], ['failed', [], {
      name: 'StackShiftError', code: 'payload_too_large', message: 'result of step big has 102 bytes; the limit is 100',
      retryable: false, stack: answer.error!.stack
    }])
    assert.deepEqual(failures, ['result of step big has 102 bytes; the limit is 100'])
  })
})

test('an answer over 4 MiB fails the run, and says so', async () => {
  await withJobs({ big: async () => 'ü'.repeat(2_100_000), fits: async () => 'x'.repeat(4_000_000) }, async app => {
    const answer = await fleet.call(app.url, fleet.run('big'))
    assert.deepEqual([answer.status, answer.error!.code, answer.error!.retryable], ['failed', 'payload_too_large', false])
    assert.match(answer.error!.message, /^the answer of job big is 42000\d\d bytes; the limit is 4194304$/)
    assert.equal((await fleet.call(app.url, fleet.run('fits'))).status, 'completed')
  })
})

test('an entry that did not fit into the call is read from commit.url, in its order', async () => {
  await withJobs({
    refs: async ({ step }) => {
      const all = await Promise.all([step.run('small', () => 0), step.run('large', () => 0)])
      try {
        await step.run('failed', () => 0)
      } catch (error) {
        all.push((error as Error).message as never)
      }
      return all
    }
  }, async app => {
    fleet.refs.set('3', { result: { text: 'large' } })
    fleet.refs.set('4', { error: { message: 'long ago' } })
    const run = fleet.run('refs', {}, {
      steps: [{ name: 'large', kind: 'step', ref: '3' }, { name: 'small', kind: 'step', result: 's' }, { name: 'failed', kind: 'step', ref: '4' }]
    })
    assert.deepEqual((await fleet.call(app.url, run)).result, ['s', { text: 'large' }, 'long ago'])
    const gone = fleet.run('refs', {}, { steps: [{ name: 'small', kind: 'step', ref: 'none' }] })
    const answer = await fleet.call(app.url, gone)
    assert.deepEqual([answer.status, answer.error!.retryAfter, answer.error!.retryable], ['failed', '5s', undefined])
    assert.match(answer.error!.message, /ref none could not be read/)
  })
})

test('without commit.url the first new thing ends the call, and its op is in the answer', async () => {
  const { calls, definitions } = counting()
  fleet.state.clear()
  await withJobs(definitions, async app => {
    const run = fleet.run('three')
    const first = await fleet.call(app.url, run, { commit: null })
    assert.deepEqual([first.status, first.ops.map(({ op, name }) => `${op} ${name}`)], ['continue', ['step a']])
    const second = await fleet.call(app.url, run, { commit: null })
    assert.deepEqual(second.ops.map(({ op, name }) => `${op} ${name}`), ['state state.increment'])
    assert.deepEqual((await fleet.drive(app.url, run, { commit: null })).result, [1, 1, 1])
    assert.deepEqual(calls, { a: 1, b: 1 })
    assert.equal(fleet.commits.length, 0)
  })
})

test('without commit.url, steps that have begun side by side end together', async () => {
  await withJobs({
    beside: ({ step }) => Promise.all([step.run('fast', () => 1), step.run('slow', async () => { await pause(30); return 2 })])
  }, async app => {
    const run = fleet.run('beside')
    const answer = await fleet.call(app.url, run, { commit: null })
    assert.deepEqual([answer.status, answer.ops.map(({ name }) => name)], ['continue', ['fast', 'slow']])
    assert.deepEqual((await fleet.call(app.url, run, { commit: null })).result, [1, 2])
  })
})

test('without commit.url, a handler goes on from a race although it leaves a wait behind', async () => {
  await withJobs({
    race: async ({ step }) => {
      const first = await Promise.race([step.waitForEvent('paid').then(() => 'paid'), step.sleep('1h').then(() => 'late')])
      return step.run('after', () => first)
    },
    beside: ({ step }) => Promise.all([
      step.run('good', () => 1), step.run('bad', { maxAttempts: 2 }, () => { throw new Error('no') }), step.sleep('1h')
    ])
  }, async app => {
    const run = fleet.run('race', {}, { steps: [{ name: 'sleep', kind: 'sleep', result: null }] })
    const answer = await fleet.call(app.url, run, { commit: null })
    assert.deepEqual([answer.status, answer.ops.map(({ name }) => name)], ['continue', ['after']])
    assert.equal((await fleet.call(app.url, run, { commit: null })).result, 'late')
    const tried = await fleet.call(app.url, fleet.run('beside'), { commit: null })
    assert.deepEqual([tried.status, tried.ops.map(({ op }) => op)], ['suspended', ['step', 'step_retry']])
  })
})

test('where commit.url cannot be reached, ops go with the answer, and nothing is done twice', async () => {
  const { calls, definitions } = counting()
  fleet.state.clear()
  const commit = `${await nobodyThere()}/v1/commit`
  await withJobs(definitions, async app => {
    const begin = Date.now()
    assert.deepEqual((await fleet.drive(app.url, fleet.run('three'), { commit })).result, [1, 1, 1])
    assert.ok(Date.now() - begin < 2000, 'only the first call tries it')
    assert.deepEqual(calls, { a: 1, b: 1 })
  })
})

test('when the answers of commits stay lost, ops come again in the answer, and are done once', async () => {
  const { calls, definitions } = counting()
  fleet.state.clear()
  fleet.sent.length = 0
  await withJobs(definitions, async app => {
    fleet.fault = () => 'lose'
    assert.deepEqual((await fleet.drive(app.url, fleet.run('three'))).result, [1, 1, 1])
    assert.deepEqual(calls, { a: 1, b: 1 })
    assert.equal(fleet.sent.length, 1)
  }, { line: { retryForMs: 200 } })
})

test('an address that knows no commits is left alone', async () => {
  const { definitions } = counting()
  fleet.state.clear()
  await withJobs(definitions, async app => {
    assert.equal((await fleet.drive(app.url, fleet.run('three'), { commit: `${fleet.url}/elsewhere` })).status, 'completed')
  })
})

test('after maxRunMs the call ends at the next commit, and goes on when it is called again', async () => {
  await withJobs({
    long: async ({ step }) => {
      for (let i = 0; i < 4; i++) await step.run(`s-${i}`, () => pause(30))
      return 'end'
    }
  }, async app => {
    fleet.maxRunMs = 50
    const run = fleet.run('long')
    const first = await fleet.call(app.url, run)
    assert.deepEqual([first.status, first.ops], ['continue', []])
    assert.ok(run.steps.length === 1 || run.steps.length === 2, `${run.steps.length} steps`)
    assert.equal((await fleet.drive(app.url, run)).result, 'end')
  })
})

test('results that are too much for one request go in several', async () => {
  await withJobs({
    large: ({ step }) => Promise.all([1, 2, 3, 4, 5].map(i => step.run(`l-${i}`, () => 'x'.repeat(900_000)))).then(all => all.length)
  }, async app => {
    assert.equal((await fleet.call(app.url, fleet.run('large'))).result, 5)
    assert.ok(fleet.bodies.every(({ length }) => length < 3_000_000))
    assert.ok(fleet.commits.length >= 2)
  })
})

test('a request that is too large for the server is taken apart', async () => {
  const { definitions } = counting()
  fleet.state.clear()
  await withJobs(definitions, async app => {
    fleet.fault = (_, { commits }) => commits.length > 1 ? 413 : undefined
    const answers = await Promise.all(Array.from({ length: 5 }, () => fleet.call(app.url, fleet.run('three'))))
    assert.deepEqual(answers.map(({ status }) => status), Array(5).fill('completed'))
  })
})

test('onFailure is called when the last attempt has failed, and not before; its own failure changes nothing', async () => {
  const seen: unknown[] = []
  await withJobs({
    fails: [{ onFailure: ({ error, attempt, log }) => { seen.push([error.message, attempt]); log.info('noted'); throw new Error('hook') } }, () => { throw new Error('no') }]
  }, async app => {
    const run = fleet.run('fails', {}, { maxAttempts: 3 })
    assert.equal((await fleet.drive(app.url, run)).error!.message, 'no')
    assert.deepEqual(seen, [['no', 3]])
    assert.deepEqual(run.logs.map(({ message }) => message), ['noted', 'onFailure failed: hook'])
    assert.match(app.warnings[0]!, /onFailure of job fails failed in run .*: hook/)
  })
})

for (const { name, commit, kept } of [
  { name: 'once the worker has hung up, steps in hand end, and none begins', commit: undefined, kept: ['in-hand'] },
  { name: 'once the worker has hung up, none begins without commit.url either', commit: null, kept: [] }
]) {
  test(name, async () => {
    const opened = gate()
    const began: string[] = []
    const begun = (step: string) => async (): Promise<void> => { began.push(step); await opened.promise }
    await withJobs({
      slow: async ({ step }) => { await step.run('in-hand', begun('in-hand')); await step.run('next', begun('next')) },
      own: async ({ step }) => { await begun('own work')(); await step.run('first', begun('first')) }
    }, async app => {
      const hangUp = new AbortController()
      const runs = [fleet.run('slow'), fleet.run('own')]
      const calls = runs.map(run => fleet.call(app.url, run, { commit, signal: hangUp.signal }))
      await until(() => began.length === 2)
      hangUp.abort()
      for (const call of calls) await assert.rejects(call)
      await pause(50) // the endpoint hears of it
      opened.open()
      await until(() => runs[0]!.steps.length === kept.length)
      await pause(50)
      assert.deepEqual(began, ['in-hand', 'own work'])
      assert.deepEqual(runs.map(run => run.steps.map(({ name }) => name)), [kept, []])
    })
  })
}

test('a closing server lets the steps in hand end, and goes on elsewhere', async () => {
  const opened = gate()
  const began = gate()
  const app = await serveJobs(fleet, {
    slow: async ({ step }) => {
      await step.run('first', async () => { began.open(); await opened.promise; return 1 })
      await step.run('second', () => 2)
    }
  })
  const run = fleet.run('slow')
  const call = fleet.call(app.url, run)
  await began.promise
  const closed = app.close()
  opened.open()
  assert.equal((await call).status, 'continue')
  assert.deepEqual(run.steps.map(({ name }) => name), ['first'])
  await closed
})
