// The TypeScript SDK and the real fleet: the public snippets as they are, and what no fleet made up for tests can show.

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Fleet, freePort, until } from './fleet.mjs'

const full = process.env.DURABLE_CHAOS === 'full'
const folder = mkdtempSync(join(tmpdir(), 'durable-node-'))
after(() => rmSync(folder, { recursive: true }))

/** Starts endpoint.mjs, and answers once it is registered. */
async function endpoint(fleet, port, effects) {
  const child = fork(new URL('endpoint.mjs', import.meta.url), [String(port), effects], {
    env: { ...process.env, STACKSHIFT_URL: fleet.url, STACKSHIFT_API_KEY: fleet.key }
  })
  await Promise.race([once(child, 'message'), once(child, 'exit').then(() => { throw new Error('the endpoint ended') })])
  return child
}

const calls = effects => readFileSync(effects, 'utf8').split('\n').filter(Boolean).map(line => line.split('\t'))

/** No function of a step was called after that step was committed. */
function checkCalls(fleet, effects) {
  const committed = new Map(fleet.sql(
    "select run_id || ' ' || name, to_char(committed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from durable.steps"))
  for (const [run, step, at] of calls(effects)) {
    const end = committed.get(`${run} ${step}`)
    assert.ok(end === undefined || at <= end, `${step} of ${run} was called at ${at}, after it was committed at ${end}`)
  }
}

describe('the public snippets', () => {
  let fleet, snippets, server
  before(async () => {
    fleet = await Fleet.start()
    process.env.STACKSHIFT_URL = fleet.url
    process.env.STACKSHIFT_API_KEY = fleet.key
    snippets = await import('../../sdk/typescript/dist/test/snippets/public.js')
    server = await snippets.stackshift.serve({ port: await freePort(), name: 'snippets' })
  })
  after(async () => {
    await server.close()
    await fleet.stop()
  })

  test('start, enqueue and send what they say', () => {
    assert.deepEqual(fleet.sql('select job, queue, idempotency_key, status from durable.runs order by id'), [
      ['send-verification-email', 'emails', 'verify:user_123', 'queued'],
      ['provisionAfterPayment', 'payments', 'payment:pay_123:provision', 'queued']
    ])
    assert.deepEqual(fleet.sql('select name, correlation_key, payload, idempotency_key from durable.events'),
      [['email.verified', 'user:123', '{"userId": "123"}', 'email.verified:user:123']])
  })

  test('userOnboarding ends as the text promises', async () => {
    const run = await snippets.stackshift.start('userOnboarding', { userId: '123', email: 'ada@example.com' })
    const { status, result } = await snippets.stackshift.runs.result(run.id)
    assert.deepEqual([status, result], ['completed', { onboarded: true }])
    assert.deepEqual(snippets.effects, ['create 123', 'send ada@example.com', 'unlock 123'])
    assert.deepEqual(fleet.sql("select value from durable.state_get('onboarded:total')"), [['1']])
    assert.deepEqual(fleet.sql("select value, expires_at > now() + interval '6 days' from durable.state_get('onboarding:last')"),
      [['{"processed": 1}', 't']])
  })

  test('processUpload imports each of its batches once, in one call', async () => {
    const rows = Array.from({ length: 100 }, (_, i) => i)
    const run = await snippets.stackshift.start('processUpload', { fileId: 'f', rows })
    assert.equal((await snippets.stackshift.runs.result(run.id)).status, 'completed')
    assert.deepEqual(snippets.effects.slice(3), ['import 2', 'import 98'])
    assert.deepEqual(fleet.sql("select value from durable.state_get('files:f:rows')"), [['100']])
  })
})

for (const commits of [true, false]) {
  describe(commits ? 'handlers that commit while they run' : 'handlers that answer with their ops', () => {
    const effects = join(folder, `effects-${commits}`)
    let fleet, child, port
    before(async () => {
      fleet = await Fleet.start({ commits })
      port = await freePort()
      child = await endpoint(fleet, port, effects)
    })
    after(async () => {
      child.kill('SIGKILL')
      await fleet.stop()
    })
    const start = (job, payload = {}) => fleet.sql(`select durable.start('${job}', '${JSON.stringify(payload)}')`)[0][0]
    const ended = async id => {
      await until(`run ${id} ends`, () => fleet.sql(`select finished_at is not null from durable.runs where id = '${id}'`)[0][0] === 't')
      return fleet.sql(`select status, coalesce(result, error) from durable.runs where id = '${id}'`)[0]
    }

    test('a hundred steps are one call, or one each', async () => {
      const id = start('hundred')
      assert.deepEqual(await ended(id), ['completed', '100'])
      const count = calls(effects).filter(([run, step]) => run === id && step === 'call').length
      assert.equal(count, commits ? 1 : 101)
      assert.deepEqual(fleet.sql(`select attempt from durable.runs where id = '${id}'`), [['1']])
    })

    test('a child gives its result', async () => {
      assert.deepEqual(await ended(start('parent')), ['completed', '{"child": "done"}'])
    })

    test('children side by side run at once, and give their results in order', async () => {
      const id = start('three')
      assert.deepEqual(await ended(id), ['completed', '[1, 2, 3]'])
      assert.deepEqual(fleet.sql(`select count(*) from durable.runs where parent_run_id = '${id}'`), [['3']])
    })

    test('a race of an event and a sleep goes on with the first', async () => {
      const late = start('race', { key: `late-${commits}`, patience: '1s' })
      const early = start('race', { key: 'early', patience: '1h' })
      await until('it waits', () => fleet.sql(`select status from durable.runs where id = '${early}'`)[0][0] === 'waiting')
      fleet.sql("select durable.send_event('signed', '{\"by\": \"ada\"}', 'early')")
      assert.deepEqual(await ended(early), ['completed', '"ada"'])
      assert.deepEqual(await ended(late), ['completed', '"nobody"'])
    })

    test('a retry does again in its place what has failed, and nothing else', async () => {
      const id = fleet.sql("select durable.start('declined')")[0][0]
      assert.equal((await ended(id))[0], 'failed')
      fleet.sql(`select durable.retry('${id}')`)
      assert.deepEqual(await ended(id), ['completed', '"charged"'])
      assert.deepEqual(calls(effects).filter(([run]) => run === id).map(([, step]) => step), ['charge', 'note', 'charge'])
      assert.deepEqual(fleet.sql(`select name, position from durable.steps where run_id = '${id}' order by position`),
        [['charge', '1'], ['note', '2']])
    })

    test('a retry waits for a child that is alive, and begins one anew that has failed', async () => {
      const id = fleet.sql("select durable.start('family', max_attempts => 1, timeout => '1 hour')")[0][0]
      const children = () => fleet.sql(`select id, status from durable.runs where parent_run_id = '${id}' order by created_at`)
      const waits = async count => {
        await until('the child waits', () => children()[count - 1]?.[1] === 'waiting')
        await until('so does its parent', () =>
          fleet.sql(`select waiting_for ->> 'runId' from durable.runs where id = '${id}'`)[0]?.[0] === children()[count - 1][0])
      }
      const tell = well => fleet.sql(`select durable.send_event('mood', '{"well": ${well}}', '${children().at(-1)[0]}')`)
      await waits(1)
      fleet.sql(`update durable_internal.timer set due_at = clock_timestamp() where run_id = '${id}' and kind = 'run_timeout'`)
      assert.equal(JSON.parse((await ended(id))[1]).name, 'RunTimeoutError')
      fleet.sql(`select durable.retry('${id}')`)
      await waits(1)
      assert.equal(children().length, 1)
      tell(false)
      assert.match((await ended(id))[1], /bad mood/)
      fleet.sql(`select durable.retry('${id}')`)
      await waits(2)
      tell(true)
      assert.deepEqual(await ended(id), ['completed', '"well"'])
      assert.deepEqual(children().map(([, status]) => status), ['failed', 'completed'])
    })

    test('a wait for any of several events takes one', async () => {
      const id = start('any')
      await until('it waits', () => fleet.sql(`select status from durable.runs where id = '${id}'`)[0][0] === 'waiting')
      fleet.sql("select durable.send_event('refused', '{\"why\": \"x\"}', 'o1')")
      const [status, result] = await ended(id)
      assert.deepEqual([status, JSON.parse(result).name, JSON.parse(result).payload], ['completed', 'refused', { why: 'x' }])
    })

    test('a lock is free again when its run has ended', async () => {
      for (let i = 0; i < 2; i++) assert.deepEqual(await ended(start('locked')), ['completed', '{"got": true}'])
    })

    test('an error that nobody catches ends the attempt', async () => {
      const id = fleet.sql("select durable.start('fails', max_attempts => 1)")[0][0]
      const [status, error] = await ended(id)
      assert.equal(status, 'failed')
      assert.match(JSON.parse(error).message, /no luck/)
    })

    test('an endpoint that is killed and comes back loses no run and repeats no completed step', async () => {
      const [runs, kills] = full ? [2000, 50] : [200, 6]
      // Where all is slow, a run can be cut off three times before its first step is committed.
      assert.equal(fleet.sql("update durable_internal.job set max_crashes = 1000 where name = 'five' returning name").length, 1)
      fleet.sql(`select durable.start_many('five', array_fill('{}'::jsonb, array[${runs}]), max_attempts => 50,
                 options => '{"backoff": {"initial": "100ms", "factor": 1}}')`)
      for (let i = 0; i < kills; i++) {
        await new Promise(resolve => setTimeout(resolve, 100 + Math.random() * 200))
        child.kill('SIGKILL')
        await once(child, 'exit')
        child = await endpoint(fleet, port, effects)
      }
      await until('all runs are completed', () => fleet.sql(
        "select count(*) from durable.runs where job = 'five' and status <> 'completed'")[0][0] === '0', 120)
      assert.equal(Number(fleet.sql("select count(*) from durable.steps s join durable.runs r on r.id = s.run_id where r.job = 'five' and r.parent_run_id is null")[0][0]), runs * 5)
      checkCalls(fleet, effects)
    })
  })
}
