// What cannot work is found, and the message says how to mend it.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Context } from '@stackshift-cloud/jobs'
import { pause, serveJobs, type App } from './support/app.js'
import { Fleet, type Answer, type Entry } from './support/fleet.js'

let fleet: Fleet

before(async () => { fleet = await Fleet.start() })
after(async () => { await fleet.stop() })

type Run = (context: Context) => unknown

async function answerOf(handler: Run, steps: Entry[] = [], call: NonNullable<Parameters<typeof serveJobs>[2]>['call'] = {}): Promise<Answer> {
  const app: App = await serveJobs(fleet, { job: handler }, { call: { graceMs: 60, branchesGraceMs: 200, ...call } })
  try {
    return await fleet.call(app.url, fleet.run('job', {}, { steps }))
  } finally {
    await app.close({ grace: 0 })
  }
}

async function misuseOf(handler: Run): Promise<string> {
  const { status, error } = await answerOf(handler)
  assert.equal(status, 'failed')
  assert.deepEqual([error!.name, error!.retryable], ['MisuseError', false], error!.message)
  return error!.message
}

const kept = (...names: string[]): Entry[] => names.map(name => ({ name, kind: 'step', result: name }))

describe('a step inside of a step', () => {
  test('is refused, also after an await', async () => {
    const message = await misuseOf(({ step }) => step.run('outer', async () => {
      await pause(1)
      return step.run('inner', () => 1)
    }))
    assert.match(message, /^step\.run\("inner", …\) was called inside of step "outer": .*move the call out of the step/)
  })

  test('is refused even if the handler catches it', async () => {
    const message = await misuseOf(async ({ step, state }) => {
      await step.run('outer', async () => { await state.get('k').catch(() => {}); return 1 })
      await step.sleep('1h')
    })
    assert.match(message, /state\.get\("k"\) was called inside of step "outer"/)
  })

  test('is not mistaken for a step beside it', async () => {
    const { status } = await answerOf(({ step }) => Promise.all([
      step.run('a', () => pause(10)),
      (async () => { await pause(5); await step.run('b', () => pause(1)); await step.run('c', () => 1) })()
    ]))
    assert.equal(status, 'completed')
  })
})

describe('a step that is not waited for', () => {
  test('is refused while it goes on', async () => {
    const message = await misuseOf(({ step }) => { void step.run('mail', () => pause(10)) })
    assert.match(message, /did not wait for step\.run\("mail", …\): write "await step\.run\("mail", …\)"/)
  })

  test('is refused when it has finished, too', async () => {
    const message = await misuseOf(async ({ step }) => {
      void step.run('mail', () => 1)
      await step.run('other', () => pause(10))
    })
    assert.match(message, /did not wait for step\.run\("mail"/)
  })

  test('does not end the process when it fails', async () => {
    assert.match(await misuseOf(({ step }) => { void step.run('mail', () => { throw new Error('unheard') }) }), /did not wait/)
  })

  test('may be waited for later, or in a group', async () => {
    const { status } = await answerOf(async ({ step }) => {
      const first = step.run('a', () => 1)
      await step.run('b', () => 1)
      await first
      await Promise.allSettled([step.run('c', () => { throw new Error('no') }), step.run('d', () => 1)])
      return step.run('e', () => 1)
    })
    assert.equal(status, 'completed')
  })

  test('a wait, a state call, an event are no different', async () => {
    assert.match(await misuseOf(({ step }) => { void step.sleep('1h') }), /did not wait for step\.sleep\("1h"\)/)
    assert.match(await misuseOf(({ state }) => { void state.set('k', 1) }), /did not wait for state\.set\("k", …\)/)
    assert.match(await misuseOf(({ step }) => { void step.sendEvent('e') }), /did not wait for step\.sendEvent\("e", …\)/)
  })
})

describe('code that does not fit what the run remembers', () => {
  const found = async (handler: Run, steps: Entry[], graceMs = 60): Promise<unknown> => {
    const { status, ops } = await answerOf(handler, steps, { graceMs })
    assert.deepEqual([status, ops.length, ops[0]!.op], ['suspended', 1, 'park'])
    const { name, expected, found } = ops[0]!
    return { name, expected, found }
  }
  const never = (): never => { throw new Error('was called') }

  test('a renamed step parks the run, and is not begun', async () => {
    assert.deepEqual(await found(async ({ step }) => { await step.run('a', never); await step.run('b2', never) }, kept('a', 'b')),
      { name: 'b', expected: 'b', found: 'b2' })
  })

  test('a changed order parks the run', async () => {
    assert.deepEqual(await found(async ({ step }) => { await step.run('b', never); await step.run('a', never) }, kept('a', 'b')),
      { name: 'a', expected: 'a', found: 'b' })
  })

  test('a step that was put in between parks the run', async () => {
    assert.deepEqual(await found(async ({ step }) => { await step.run('a', never); await step.run('new', never); await step.run('b', never) }, kept('a', 'b')),
      { name: 'b', expected: 'b', found: 'new' })
  })

  test('a step that was left out parks the run, also at the handler\'s end', async () => {
    assert.deepEqual(await found(({ step }) => step.run('a', never), kept('a', 'b')), { name: 'b', expected: 'b', found: 'end' })
  })

  test('the same name of another kind parks the run at once', async () => {
    const begin = Date.now()
    assert.deepEqual(await found(({ step }) => step.sleep('a', '1h'), kept('a'), 60_000), { name: 'a', expected: 'a (step)', found: 'a (sleep)' })
    assert.ok(Date.now() - begin < 30_000)
  })

  test('a wait in place of a step parks the run', async () => {
    assert.deepEqual(await found(async ({ step }) => { await step.waitForEvent('e') }, kept('a')), { name: 'a', expected: 'a', found: 'e' })
  })

  test('branches may ask in any order, and take their time', async () => {
    const { status, result } = await answerOf(({ step }) => Promise.all([
      step.run('a', never),
      (async () => { await pause(100); return step.run('b', never) })(), // longer than the grace of a handler without branches
      step.run('new', () => 'new')
    ]), kept('b', 'a'))
    assert.deepEqual([status, result], ['completed', ['a', 'b', 'new']])
  })

  test('an error on the way is an error, not other code', async () => {
    const { status, error } = await answerOf(async ({ step }) => { await step.run('a', never); throw new Error('network') }, kept('a', 'b'))
    assert.deepEqual([status, error!.message], ['failed', 'network'])
  })
})

describe('a result that JSON cannot hold', () => {
  class Money { constructor(readonly amount: bigint) {} }
  const circular: Record<string, unknown> = {}
  circular.self = { circular }
  let deep: unknown = 1
  for (let i = 0; i < 70; i++) deep = [deep]
  const cases: [string, unknown, RegExp][] = [
    ['a bigint', { price: 1n }, /the result of step "s": price is a bigint, .*make it a string/],
    ['a Map', { a: [new Map()] }, /a\[0\] is a Map, .*Object\.fromEntries/],
    ['a Set', new Set(), /the result of step "s" is a Set, .*\[\.\.\.set\]/],
    ['a function', { f: () => 1 }, /f is a function/],
    ['a symbol', [Symbol('s')], /\[0\] is a symbol/],
    ['NaN', { x: { y: NaN } }, /x\.y is NaN/],
    ['an Error', { cause: new Error('e') }, /cause is an Error, .*throw it/],
    ['bytes', Buffer.from('x'), /binary data, .*base64/],
    ['a promise', [Promise.resolve(1)], /\[0\] is a promise: await it/],
    ['a circle', circular, /self\.circular is part of itself/],
    ['depth', deep, /nested deeper than 64 levels/],
    ['an invalid Date', new Date('x'), /is an invalid Date/],
    ['a class with such a member', new Money(1n), /amount is a bigint/],
    ['U+0000', 'a\0b', /U\+0000/],
    ['half a surrogate pair', { x: '\ud800' }, /half of a surrogate pair/]
  ]
  for (const [name, value, message] of cases) {
    test(`${name} is refused, with its place`, async () => {
      let calls = 0
      assert.match(await misuseOf(({ step }) => step.run('s', { maxAttempts: 3 }, () => { calls++; return value })), message)
      assert.equal(calls, 1, 'it would return the same again')
    })
  }

  test('the handler\'s own result is looked at, too', async () => {
    assert.match(await misuseOf(() => ({ total: 10n })), /the result of job "job": total is a bigint/)
  })

  test('what JSON can hold passes: Dates, toJSON, classes of data, a text that looks like an escape', async () => {
    class Point { constructor(readonly x: number) {} }
    const { status, result } = await answerOf(() => ({
      at: new Date(0), point: new Point(1), url: new URL('http://a/'), odd: '\\u0000 \\ud800', nothing: undefined, bare: Object.create(null)
    }))
    assert.deepEqual([status, result], ['completed', { at: '1970-01-01T00:00:00.000Z', point: { x: 1 }, url: 'http://a/', odd: '\\u0000 \\ud800', bare: {} }])
  })
})

describe('other misuse', () => {
  test('a name that is none', async () => {
    assert.match(await misuseOf(({ step }) => step.run('send mail', () => 1)), /^'send mail' in step\.run\("send mail", …\) is not a name; 1 to 200 characters/)
  })

  test('an argument that is wrong is thrown to the handler, and not tried again', async () => {
    const { status, error } = await answerOf(({ step }) => step.sleep('soon'))
    assert.deepEqual([status, error!.retryable], ['failed', false])
    assert.match(error!.message, /'soon' is not a duration; such as 500ms/)
  })

  test('a handler that catches everything does not catch a suspension', async () => {
    let caught = 0
    const { status, ops } = await answerOf(async ({ step }) => {
      for (;;) {
        try {
          await step.sleep('1h')
          return undefined
        } catch {
          if (++caught > 3) return 'spun'
        } finally {
          caught++
        }
      }
    })
    await pause(10)
    assert.deepEqual([status, ops[0]!.op, caught], ['suspended', 'sleep', 0])
  })

  test('waits, sleeps and children that are asked for at once suspend the run together', async () => {
    const { status, ops } = await answerOf(({ step }) => Promise.all([
      step.waitForEvent('e'), step.sleep('1h'), step.runJob('other'), step.run('a', () => 1)
    ]))
    assert.equal(status, 'suspended')
    assert.deepEqual(ops.map(({ op }) => op).filter(op => op !== 'step'), ['wait_event', 'sleep', 'child'])
  })

  test('of very many, or very large ones, the last are asked for later', async () => {
    for (const [count, chars, together] of [[600, 10, 500], [12, 300 * 1024, 3], [2, 1500 * 1024, 1]] as const) {
      const { status, ops } = await answerOf(({ step }) =>
        Promise.all(Array.from({ length: count }, () => step.runJob('other', { text: 'x'.repeat(chars) }))))
      assert.deepEqual([status, ops.length], ['suspended', together])
    }
  })

  test('a handler that goes on beside a wait cannot change what was answered', async () => {
    let begun = 0
    const { status, ops } = await answerOf(({ step }) => Promise.race([
      step.waitForEvent('e'),
      (async () => { await pause(30); await step.run('late', () => ++begun) })()
    ]))
    await pause(60)
    assert.deepEqual([status, ops.map(({ op }) => op), begun], ['suspended', ['wait_event'], 0])
  })
})
