// Handlers at work: what they do is committed in its order, remembered, and given back.

import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { NonRetryableError, RetryAfterError, StackShiftError, StepError } from '@stackshift-cloud/jobs'
import type { Context } from '@stackshift-cloud/jobs'
import { gate, pause, serveJobs, type App, type Definitions } from './support/app.js'
import { Fleet } from './support/fleet.js'

let fleet: Fleet
let app: App

before(async () => { fleet = await Fleet.start() })
after(async () => { await fleet.stop() })
beforeEach(() => {
  fleet.fault = () => undefined
  fleet.commits.length = 0
  fleet.bodies.length = 0
  fleet.maxRunMs = 300_000
})

async function withJobs(definitions: Definitions, act: () => Promise<void>, more: Parameters<typeof serveJobs>[2] = {}): Promise<void> {
  app = await serveJobs(fleet, definitions, more)
  try {
    await act()
  } finally {
    await app.close({ grace: 0 })
  }
}

describe('steps', () => {
  test('five steps are one call and five commits, each before the next step begins', async () => {
    const seen: number[] = []
    await withJobs({
      five: async ({ step }) => {
        for (let i = 1; i <= 5; i++) await step.run(`step-${i}`, () => { seen.push(fleet.commits.length); return i })
        return 'done'
      }
    }, async () => {
      const run = fleet.run('five')
      const answer = await fleet.call(app.url, run)
      assert.deepEqual([answer.protocol, answer.status, answer.result, answer.ops], [1, 'completed', 'done', []])
      assert.deepEqual(seen, [0, 1, 2, 3, 4])
      assert.deepEqual(run.steps.map(({ name, kind, result }) => [name, kind, result]), [1, 2, 3, 4, 5].map(i => [`step-${i}`, 'step', i]))
      const [first] = fleet.commits
      assert.deepEqual(Object.keys(first!.commits[0]!), ['token', 'ops'])
      assert.match(String(first!.commits[0]!.ops[0]!.startedAt), /^\d{4}-.*Z$/)
    })
  })

  test('what is remembered is given back, and its function is not called again', async () => {
    let calls = 0
    await withJobs({
      twice: async ({ step }) => {
        const a = await step.run('a', () => ++calls)
        const b = await step.run('a', () => ++calls)
        return [a, b]
      }
    }, async () => {
      const run = fleet.run('twice', {}, { steps: [{ name: 'a', kind: 'step', result: 10 }] })
      assert.deepEqual((await fleet.call(app.url, run)).result, [10, 1])
      assert.deepEqual(run.steps.map(({ name }) => name), ['a', 'a#2'])
      assert.deepEqual((await fleet.call(app.url, run)).result, [10, 1])
      assert.equal(calls, 1)
    })
  })

  test('a result is the same the first time as after a replay', async () => {
    const seen: unknown[] = []
    await withJobs({
      kept: async ({ step }) => {
        seen.push(await step.run('data', () => ({ at: new Date(0), none: undefined, list: [undefined] })), await step.run('void', () => {}))
        await step.sleep('1h')
      }
    }, async () => {
      const run = fleet.run('kept')
      await fleet.drive(app.url, run)
      assert.deepEqual(seen.slice(0, 2), [{ at: '1970-01-01T00:00:00.000Z', list: [null] }, null])
      assert.deepEqual(seen.slice(2), seen.slice(0, 2))
    })
  })

  test('steps side by side are committed together', async () => {
    await withJobs({
      all: ({ step }) => Promise.all([1, 2, 3, 4].map(i => step.run(`n-${i}`, async () => i)))
    }, async () => {
      const run = fleet.run('all')
      assert.deepEqual((await fleet.call(app.url, run)).result, [1, 2, 3, 4])
      assert.equal(fleet.commits.length, 1)
      assert.equal(fleet.commits[0]!.commits[0]!.ops.length, 4)
    })
  })

  test('many runs share few requests, and one connection', async () => {
    await withJobs({
      many: async ({ step, payload }) => {
        for (let i = 0; i < 3; i++) await step.run(`s-${i}`, () => payload.n)
        return payload.n
      }
    }, async () => {
      const before = fleet.connections
      const answers = await Promise.all(Array.from({ length: 100 }, (_, n) => fleet.call(app.url, fleet.run('many', { n }))))
      assert.deepEqual(answers.map(({ result }) => result), Array.from({ length: 100 }, (_, n) => n))
      assert.ok(fleet.commits.length < 150, `${fleet.commits.length} requests for 300 steps`)
      assert.equal(fleet.connections - before, 1)
    })
  })

  test('an uncaught error ends the attempt, and is not remembered: the next one does the step again', async () => {
    let calls = 0
    await withJobs({
      flaky: async ({ step, attempt }) => {
        await step.run('ok', () => 1)
        return step.run('flaky', () => { if (++calls < 3) throw new TypeError(`broken ${calls}`); return attempt })
      }
    }, async () => {
      const run = fleet.run('flaky')
      const first = await fleet.call(app.url, run)
      assert.equal(first.status, 'failed')
      assert.deepEqual([first.error!.name, first.error!.message, (first.error as { step?: string }).step], ['TypeError', 'broken 1', 'flaky'])
      assert.match(first.error!.stack!, /handler\.test/)
      assert.deepEqual(run.steps.map(({ name }) => name), ['ok'])
      assert.deepEqual((await fleet.drive(app.url, run)).result, 2)
      assert.equal(calls, 3)
    })
  })

  test('an error that the handler deals with is remembered before what comes next', async () => {
    const names: string[] = []
    let charges = 0
    await withJobs({
      pay: async ({ step }) => {
        try {
          await step.run('charge', () => { charges++; throw Object.assign(new Error('declined'), { name: 'CardDeclined' }) })
        } catch (error) {
          assert.ok(error instanceof StepError)
          names.push(error.name)
          await step.run('tell', () => 'told')
        }
        await step.sleep('1d')
        return 'told'
      }
    }, async () => {
      const run = fleet.run('pay')
      assert.equal((await fleet.drive(app.url, run)).result, 'told')
      assert.deepEqual(run.steps.map(({ name, error }) => [name, error?.message]), [['charge', 'declined'], ['tell', undefined], ['sleep', undefined]])
      assert.deepEqual(names, ['CardDeclined', 'CardDeclined'])
      assert.equal(charges, 1)
    })
  })

  test('a failing branch does not make its error remembered, and the other branch is kept', async () => {
    const slow = gate<string>()
    await withJobs({
      branches: async ({ step }) => {
        await Promise.all([
          step.run('bad', async () => { await pause(5); throw new Error('bad') }),
          step.run('slow', () => slow.promise).then(() => step.run('after', () => 1))
        ])
      }
    }, async () => {
      const run = fleet.run('branches')
      const call = fleet.call(app.url, run)
      await pause(20)
      slow.open('kept')
      const answer = await call
      assert.deepEqual([answer.status, answer.error!.message, answer.error!.retryable], ['failed', 'bad', undefined])
      assert.deepEqual(run.steps.map(({ name }) => name), ['slow'])
    })
  })

  test('a branch that fails at once keeps its sibling from beginning, unless the handler deals with it', async () => {
    let begun = 0
    const both = (step: Context['step']): Promise<unknown>[] => [
      step.run('bad', () => { throw new Error('bad') }), step.run('other', () => ++begun)
    ]
    await withJobs({
      all: ({ step }) => Promise.all(both(step)),
      settled: async ({ step }) => (await Promise.allSettled(both(step))).map(({ status }) => status)
    }, async () => {
      const run = fleet.run('all')
      assert.equal((await fleet.call(app.url, run)).error!.message, 'bad')
      assert.deepEqual([run.steps, begun], [[], 0])
      const settled = fleet.run('settled')
      assert.deepEqual((await fleet.call(app.url, settled)).result, ['rejected', 'fulfilled'])
      assert.deepEqual(settled.steps.map(({ name, error }) => [name, error?.message]), [['bad', 'bad'], ['other', undefined]])
      assert.deepEqual((await fleet.call(app.url, settled)).result, ['rejected', 'fulfilled'])
      assert.equal(begun, 1)
    })
  })

  test('a step with a policy is tried again by the fleet, then its last error is remembered and thrown', async () => {
    const attempts: number[] = []
    await withJobs({
      policy: async ({ step }) => {
        try {
          await step.run('send', { maxAttempts: 3, backoff: { initial: '2s' } }, ({ attempt }) => {
            attempts.push(attempt)
            if (attempt === 2) throw new RetryAfterError('busy', '7s')
            throw new Error(`no ${attempt}`)
          })
        } catch (error) {
          return (error as Error).message
        }
        return undefined
      }
    }, async () => {
      const run = fleet.run('policy')
      const first = await fleet.call(app.url, run)
      assert.equal(first.status, 'suspended')
      const { error, ...op } = first.ops[0]!
      assert.deepEqual(op, { op: 'step_retry', name: 'send', backoff: { initial: '2s' }, tries: 1 })
      assert.equal((error as Error).message, 'no 1')
      const second = await fleet.call(app.url, run)
      assert.deepEqual([second.ops[0]!.tries, second.ops[0]!.retryAfter], [2, '7s'])
      const third = await fleet.call(app.url, run)
      assert.deepEqual([third.status, third.result], ['completed', 'no 3'])
      assert.deepEqual(run.steps.map(step => [step.name, step.error?.message]), [['send', 'no 3']])
      assert.equal((await fleet.call(app.url, run)).result, 'no 3')
      assert.deepEqual(attempts, [1, 2, 3])
    })
  })

  test('a step over its time fails as StepTimeoutError, and its signal aborts', async () => {
    let reason: unknown
    await withJobs({
      slow: ({ step }) => step.run('slow', { timeout: 20 }, ({ signal }) => new Promise(() => {
        signal.addEventListener('abort', () => { reason = signal.reason })
      }))
    }, async () => {
      const answer = await fleet.call(app.url, fleet.run('slow'))
      assert.deepEqual([answer.status, answer.error!.name], ['failed', 'StepTimeoutError'])
      assert.equal((reason as Error).name, 'StepTimeoutError')
    })
  })

  test('NonRetryableError and RetryAfterError say so in the answer', async () => {
    await withJobs({
      never: ({ step }) => step.run('x', () => { throw new NonRetryableError('gone') }),
      later: () => { throw new RetryAfterError('busy', '90s') }
    }, async () => {
      const never = await fleet.call(app.url, fleet.run('never'))
      assert.deepEqual([never.error!.name, never.error!.retryable], ['NonRetryableError', false])
      const later = await fleet.call(app.url, fleet.run('later'))
      assert.deepEqual([later.error!.name, later.error!.retryAfter], ['RetryAfterError', '90s'])
    })
  })

  test('a step gets a key of its own for services that take one', async () => {
    let key = ''
    await withJobs({ keyed: ({ step }) => step.run('pay', ({ idempotencyKey }) => { key = idempotencyKey }) }, async () => {
      const run = fleet.run('keyed')
      await fleet.call(app.url, run)
      assert.equal(key, `${run.id}:pay`)
    })
  })

  test('what the fleet forgot of a step is done again in its place', async () => {
    await withJobs({
      again: async ({ step }) => [await step.run('a', () => 'new'), await step.run('b', () => 'never')]
    }, async () => {
      const run = fleet.run('again', {}, { steps: [{ name: 'a', kind: 'step' }, { name: 'b', kind: 'step', result: 'old' }] })
      assert.deepEqual((await fleet.call(app.url, run)).result, ['new', 'old'])
    })
  })
})

describe('waits', () => {
  test('a wait suspends the call; its event is what the handler gets when it is called again', async () => {
    const passed: string[] = []
    await withJobs({
      wait: async ({ step, payload }: Context<{ user: string }>) => {
        try {
          const event = await step.waitForEvent<{ ok: boolean }>('email.verified', { correlationKey: `user:${payload.user}`, timeout: '24h' })
          return [event.timedOut, event.payload.ok, event.name]
        } catch {
          passed.push('catch')
        } finally {
          passed.push('finally')
        }
        return undefined
      }
    }, async () => {
      const run = fleet.run('wait', { user: '7' })
      const answer = await fleet.call(app.url, run)
      assert.deepEqual([answer.status, answer.ops], ['suspended', [
        { op: 'wait_event', name: 'email.verified', event: 'email.verified', correlationKey: 'user:7', timeout: '24h', onTimeout: 'fail' }
      ]])
      assert.deepEqual(passed, [], 'a suspension is no error')
      run.steps.push({
        name: 'email.verified', kind: 'wait_event',
        result: { timedOut: false, id: 'e', name: 'email.verified', correlationKey: 'user:7', payload: { ok: true }, receivedAt: 'now' }
      })
      assert.deepEqual((await fleet.call(app.url, run)).result, [false, true, 'email.verified'])
    })
  })

  test('waitForAny, sleep, sleepUntil and runJob say what they are', async () => {
    await withJobs({
      any: ({ step }) => step.waitForAny(['a', { event: 'b', correlationKey: 'k' }], { onTimeout: 'continue', timeout: 5000 }),
      sleep: ({ step }) => step.sleep('nap', '1h30m'),
      until: ({ step }) => step.sleepUntil(new Date(0)),
      child: ({ step }) => step.runJob('report', { month: 5 }, { name: 'may', queueName: 'slow', timeout: 60_000, scheduledAt: new Date(0) })
    }, async () => {
      const opOf = async (job: string): Promise<unknown> => (await fleet.call(app.url, fleet.run(job))).ops[0]
      assert.deepEqual(await opOf('any'), {
        op: 'wait_any', name: 'a/b', timeout: '5000ms', onTimeout: 'continue',
        events: [{ event: 'a', correlationKey: null }, { event: 'b', correlationKey: 'k' }]
      })
      assert.deepEqual(await opOf('sleep'), { op: 'sleep', name: 'nap', duration: '1h30m' })
      assert.deepEqual(await opOf('until'), { op: 'sleep', name: 'sleep', until: '1970-01-01T00:00:00.000Z' })
      assert.deepEqual(await opOf('child'), {
        op: 'child', name: 'may', job: 'report', payload: { month: 5 },
        options: { queueName: 'slow', timeout: '60000ms', scheduledAt: '1970-01-01T00:00:00.000Z' }
      })
    })
  })

  test('onTimeout continue gives timedOut; a failed child throws its error', async () => {
    await withJobs({
      both: async ({ step }) => {
        const event = await step.waitForEvent('e', { onTimeout: 'continue', timeout: '1s' })
        try {
          await step.runJob('child')
        } catch (error) {
          return [event, (error as Error).name, (error as Error).message]
        }
        return undefined
      }
    }, async () => {
      const run = fleet.run('both', {}, {
        steps: [{ name: 'e', kind: 'wait_event', result: { timedOut: true } }, { name: 'child', kind: 'child', error: { name: 'Oops', message: 'no' } }]
      })
      assert.deepEqual((await fleet.call(app.url, run)).result, [{ timedOut: true }, 'Oops', 'no'])
    })
  })

  test('with a step beside it, a sleep waits until the step is committed', async () => {
    await withJobs({
      beside: async ({ step }) => {
        await Promise.all([step.sleep('1h'), step.run('work', async () => { await pause(20); return 1 })])
        return 'both'
      }
    }, async () => {
      const run = fleet.run('beside')
      const answer = await fleet.call(app.url, run)
      assert.deepEqual([answer.status, answer.ops.map(({ op }) => op), run.steps.map(({ name }) => name)], ['suspended', ['sleep'], ['work']])
      run.steps.push({ name: 'sleep', kind: 'sleep', result: null })
      assert.equal((await fleet.call(app.url, run)).result, 'both')
    })
  })
})

describe('state, events, log', () => {
  test('state calls are ops, and give what their results are', async () => {
    await withJobs({
      state: async ({ state, step }) => [
        await state.get('k'),
        await state.set('k', { a: 1 }, { expiresAt: new Date(0) }),
        await state.increment('n'),
        await state.increment('n', 4),
        await state.get('k'),
        await state.delete('k'),
        await state.lock('l', { ttl: '1m' }),
        await state.lock('l'),
        await state.unlock('l'),
        (await step.sendEvent('shipped', { parcel: 7 }, { correlationKey: 'c', idempotencyKey: 'i' })).id.length
      ]
    }, async () => {
      const run = fleet.run('state')
      assert.deepEqual((await fleet.call(app.url, run)).result, [
        null, { version: 1 }, 1, 5, { value: { a: 1 }, version: 1, expiresAt: '1970-01-01T00:00:00.000Z' }, true, true, false, true, 36
      ])
      assert.deepEqual(run.steps.map(({ name, kind }) => `${name} ${kind}`), [
        'state.get state', 'state.set state', 'state.increment state', 'state.increment#2 state', 'state.get#2 state',
        'state.delete state', 'state.lock state', 'state.lock#2 state', 'state.unlock state', 'send:shipped send_event'
      ])
      const { name, op, ...set } = run.arrived[1]!
      assert.deepEqual(set, { action: 'set', key: 'k', value: { a: 1 }, expiresAt: '1970-01-01T00:00:00.000Z' })
      const { name: _, ...event } = run.arrived.at(-1)!
      assert.deepEqual(event, { op: 'send_event', event: 'shipped', payload: { parcel: 7 }, correlationKey: 'c', idempotencyKey: 'i' })
    })
  })

  test('what the state refuses is thrown as StackShiftError, the first time and later', async () => {
    const errors: unknown[] = []
    await withJobs({
      refused: async ({ state, step }) => {
        try {
          await state.set('other', 1, { ifVersion: 9 })
        } catch (error) {
          assert.ok(error instanceof StackShiftError)
          errors.push([error.code, error.status])
        }
        await step.sleep('1s')
      }
    }, async () => {
      assert.equal((await fleet.drive(app.url, fleet.run('refused'))).status, 'completed')
      assert.deepEqual(errors, [['conflict', 409], ['conflict', 409]])
    })
  })

  test('a lock with wait is asked for again, and a replay does not wait again', async () => {
    fleet.state.set('lock:busy', { value: null, version: 1, expiresAt: null })
    await withJobs({ lock: async ({ state, step }) => { const got = await state.lock('busy', { wait: 400 }); await step.sleep('1s'); return got } }, async () => {
      const run = fleet.run('lock')
      fleet.fault = number => { if (number === 3) fleet.state.delete('lock:busy'); return undefined }
      assert.equal((await fleet.call(app.url, run)).status, 'suspended')
      assert.deepEqual(run.steps.map(({ result }) => result), [false, false, true])
      run.steps.push({ name: 'sleep', kind: 'sleep', result: null })
      const begin = Date.now()
      assert.equal((await fleet.call(app.url, run)).result, true)
      assert.ok(Date.now() - begin < 150)
    })
  })

  test('lines of the log go along with commits, and are not written again in a replay', async () => {
    await withJobs({
      log: async ({ log, step, progress }) => {
        log.info('begins', { n: 1 })
        progress(1)
        progress(2)
        await step.run('a', () => 1)
        log.warn('ends', { error: new Error('no'), big: 1n })
        await step.sleep('1h')
        log.debug('last', { large: 'x'.repeat(300_000) })
      }
    }, async () => {
      const run = fleet.run('log')
      await fleet.drive(app.url, run)
      assert.deepEqual(run.logs.map(({ level, message }) => [level, message]), [['info', 'begins'], ['warning', 'ends'], ['debug', 'last']])
      assert.equal((run.logs[1]!.fields as { error: Error }).error.message, 'no')
      assert.deepEqual(run.logs[2]!.fields, { leftOut: 'fields of 300012 characters' })
      assert.equal(run.progress, 2)
      assert.equal(run.arrived.filter(({ op }) => op === 'progress').length, 1)
      assert.deepEqual(run.arrived.slice(0, 3).map(({ op }) => op), ['log', 'progress', 'step'])
      assert.equal(fleet.commits.length, 1)
    })
  })
})

describe('patched', () => {
  const handler = async ({ step }: Context): Promise<string> => {
    await step.run('a', () => 1)
    const patched = step.patched('p')
    if (patched) await step.run('new', () => 1)
    await step.run('b', () => 1)
    return `${patched} ${step.patched('p')}`
  }

  test('is true for a run that comes to it with nothing behind it, and stays so', async () => {
    await withJobs({ patch: handler }, async () => {
      const run = fleet.run('patch', {}, { steps: [{ name: 'a', kind: 'step', result: 1 }] })
      assert.equal((await fleet.call(app.url, run)).result, 'true true')
      assert.deepEqual(run.steps.map(({ name }) => name), ['a', 'patched:p', 'new', 'b'])
      assert.equal(fleet.commits.length, 2, 'it costs no request of its own')
      assert.equal((await fleet.call(app.url, run)).result, 'true true')
    })
  })

  test('is false for a run that has gone by', async () => {
    await withJobs({ patch: handler }, async () => {
      const run = fleet.run('patch', {}, { steps: [{ name: 'a', kind: 'step', result: 1 }, { name: 'b', kind: 'step', result: 1 }] })
      assert.equal((await fleet.call(app.url, run)).result, 'false false')
      assert.equal(run.steps.length, 2)
    })
  })

  test('may be taken out again', async () => {
    await withJobs({ patch: async ({ step }) => { await step.run('a', () => 1); await step.run('new', () => 1); return step.run('b', () => 1) } }, async () => {
      const run = fleet.run('patch', {}, {
        steps: [{ name: 'a', kind: 'step', result: 1 }, { name: 'patched:p', kind: 'step', result: true }, { name: 'new', kind: 'step', result: 1 }]
      })
      assert.equal((await fleet.call(app.url, run)).status, 'completed')
    })
  })
})
