// What comes too late: losers of a race, and step functions that come back when their call is over.

import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import { gate, pause, serveJobs, until, type App, type Definitions } from './support/app.js'
import { Fleet } from './support/fleet.js'

let fleet: Fleet
const unhandled: unknown[] = []
const notice = (error: unknown): number => unhandled.push(error)

before(async () => {
  fleet = await Fleet.start()
  process.on('unhandledRejection', notice)
})
after(async () => {
  process.off('unhandledRejection', notice)
  await fleet.stop()
})
beforeEach(() => {
  fleet.fault = () => undefined
  fleet.commits.length = 0
  unhandled.length = 0
})

async function withJobs(definitions: Definitions, act: (app: App) => Promise<void>, more: Parameters<typeof serveJobs>[2] = {}): Promise<void> {
  const app = await serveJobs(fleet, definitions, more)
  try {
    await act(app)
    await pause(30) // a rejection is reported when nobody has come for it by then
    assert.deepEqual(unhandled, [])
  } finally {
    await app.close({ grace: 0 })
  }
}

test('the end waits for a step that has lost a race, and keeps what came of it', async () => {
  for (const commit of [undefined, null]) {
    const calls = { slow: 0, behind: 0 }
    await withJobs({
      race: ({ step }) => Promise.race([
        (async () => { await step.run('slow', async () => { await pause(60); return ++calls.slow }); await step.run('behind', () => ++calls.behind) })(),
        step.run('fast', () => 'fast')
      ])
    }, async app => {
      const run = fleet.run('race')
      const answer = await fleet.drive(app.url, run, { commit })
      assert.deepEqual([answer.status, answer.result], ['completed', 'fast'])
      assert.deepEqual(run.steps.map(({ name }) => name).sort(), ['fast', 'slow'])
      assert.deepEqual(calls, { slow: 1, behind: 0 }, 'what the loser would do next does not begin')
    })
  }
})

test('a loser that fails late harms nobody, wherever its error would go', async () => {
  await withJobs({
    race: async ({ step }) => {
      const fails = async (): Promise<never> => { await pause(60); throw new Error('late') }
      return Promise.race([
        step.run('bare', fails),
        step.run('chained', fails).then(value => value),
        (async () => { await step.run('inside', fails) })(),
        step.run('retried', { maxAttempts: 1, backoff: { initial: '1s' } }, fails),
        step.run('fast', () => 'fast')
      ])
    }
  }, async app => {
    const run = fleet.run('race')
    const answer = await fleet.call(app.url, run)
    assert.deepEqual([answer.status, answer.result], ['completed', 'fast'])
    assert.deepEqual(run.steps.filter(({ error }) => error !== undefined).map(({ name }) => name).sort(), ['bare', 'chained', 'inside', 'retried'])
  })
})

test('a step over its time is left: what its function brings later is for nobody', async () => {
  const late = gate()
  await withJobs({
    slow: async ({ step }) => {
      try {
        await step.run('s', { maxAttempts: 1, backoff: { initial: '1s' }, timeout: '20ms' }, () => late.promise)
      } catch (error) {
        return (error as Error).name
      }
      return 'in time'
    }
  }, async app => {
    const run = fleet.run('slow')
    assert.equal((await fleet.call(app.url, run)).result, 'StepTimeoutError')
    const { length } = run.arrived
    late.fail(new Error('too late'))
    await pause(20)
    assert.equal(run.arrived.length, length)
  })
})

for (const [how, begin] of [
  ['a lost lease', (): void => { fleet.fault = () => ({ each: { code: 'lease_lost' } }) }],
  ['a refusal', (): void => { fleet.fault = () => ({ each: { code: 'invalid_argument', message: 'no' } }) }],
  ['a cancel that is not listened to', (): void => { fleet.runs.forEach(run => { run.cancelled = true }) }]
] as const) {
  test(`after ${how} the handler stays where it is, and nothing more is said, however its steps end`, async () => {
    const inHand = [gate<number>(), gate<number>()]
    const went: string[] = []
    let began = 0
    await withJobs({
      lost: async ({ step, state }) => {
        const go = async (name: string, end: Promise<number>): Promise<void> => {
          try {
            await step.run(name, () => { began++; return end })
            went.push(`${name} came back`)
          } catch {
            went.push(`${name} failed`) // where a program would put right what it had done
          }
          await state.set(name, 1)
        }
        await Promise.all([go('good', inHand[0]!.promise), go('bad', inHand[1]!.promise)])
      }
    }, async app => {
      const run = fleet.run('lost')
      const call = fleet.call(app.url, run)
      await until(() => began === 2)
      begin() // learned from the next heartbeat
      assert.equal((await call).status, 'failed')
      const { length } = fleet.commits
      inHand[0]!.open(1)
      inHand[1]!.fail(new Error('late'))
      await pause(100)
      assert.equal(fleet.commits.length, length)
      assert.deepEqual([went, run.steps], [[], []])
    }, { line: { heartbeatMs: 40 }, call: { cancelGraceMs: 50 } })
  })
}
