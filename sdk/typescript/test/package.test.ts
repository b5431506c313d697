// The package as it is used: by import and by require, with its types, and with the errors of one known by the other.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { promisify } from 'node:util'
import * as esm from '@stackshift-cloud/jobs'
import * as testing from '@stackshift-cloud/jobs/testing'
import { Fleet } from './support/fleet.js'

const require = createRequire(import.meta.url)
const root = new URL('../../', import.meta.url)

test('import and require give the same names', () => {
  const names = ['Job', 'MisuseError', 'NonRetryableError', 'Queue', 'RetryAfterError', 'StackShift', 'StackShiftError', 'StepError']
  assert.deepEqual(Object.keys(esm).sort(), names)
  assert.deepEqual(Object.keys(require('@stackshift-cloud/jobs') as object).sort(), names)
  assert.deepEqual(Object.keys(testing), ['testJob'])
  assert.deepEqual(Object.keys(require('@stackshift-cloud/jobs/testing') as object), ['testJob'])
})

test('a job that is required works, too', async () => {
  const { StackShift } = require('@stackshift-cloud/jobs') as typeof esm
  const { testJob } = require('@stackshift-cloud/jobs/testing') as typeof testing
  const job = new StackShift().job('j', async ({ step }) => step.run('s', () => 1))
  assert.equal((await testJob(job)).result, 1)
})

test('there are no runtime dependencies, and no types of Node in what users see', () => {
  const { dependencies, engines } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as { dependencies?: object, engines: { node: string } }
  assert.deepEqual([dependencies, engines.node], [undefined, '>=18'])
  const seen = new Set<string>()
  const look = (file: string): void => {
    if (seen.has(file)) return
    seen.add(file)
    const text = readFileSync(new URL(`dist/esm/${file}.d.ts`, root), 'utf8')
    assert.doesNotMatch(text, /from ['"]node:/, file)
    for (const [, other] of text.matchAll(/from ['"]\.\/(\w+)\.js['"]/g)) look(other!)
  }
  look('index')
  look('testing')
  assert.ok(seen.size > 5 && readdirSync(new URL('dist/esm/', root)).length > seen.size)
})

test('with nothing but fetch and Web Crypto, jobs are served and starts are made', async () => {
  const fleet = await Fleet.start()
  fleet.api = () => ({ status: 201, body: { id: 'r' } })
  const run = fleet.run('j')
  const body = JSON.stringify({
    protocol: 1, run: { ...run, queueName: 'q' }, payload: {}, steps: [], commit: { url: `${fleet.url}/v1/commit`, token: run.token }
  })
  const program = `
    import { webcrypto } from 'node:crypto'
    globalThis.crypto ??= webcrypto
    const { process, setImmediate } = globalThis
    delete globalThis.process
    delete globalThis.setImmediate
    const { StackShift } = await import('@stackshift-cloud/jobs')
    const stackshift = new StackShift({ apiKey: 'k', baseUrl: '${fleet.url}' })
    stackshift.job('j', async ({ step }) => {
      const { id } = await step.run('start', () => stackshift.start('other'))
      await step.run('outer', () => { step.run('inner', () => 1).catch(() => {}) }) // found without async local storage, too
      return id
    })
    const handler = stackshift.fetchHandler({ signingSecret: '${fleet.secret}' })
    const request = new Request('http://edge/', { method: 'POST', body: ${JSON.stringify(body)}, headers: ${JSON.stringify(fleet.sign(body))} })
    const answer = await (await handler(request)).json()
    globalThis.process = process
    console.log(JSON.stringify(answer))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], { cwd: root })
  const answer = JSON.parse(stdout) as { status: string, error: { message: string } }
  assert.equal(answer.status, 'failed')
  assert.match(answer.error.message, /step\.run\("inner", …\) was called inside of a step/)
  assert.deepEqual(run.steps.map(({ name, result }) => [name, (result as { id?: string } | null)?.id]), [['start', 'r'], ['outer', undefined]])
  await fleet.stop()
})

test('a program that only starts and looks ends by itself, with its connection still open', async () => {
  const fleet = await Fleet.start()
  fleet.api = () => ({ status: 201, body: { id: 'r' } })
  const program = `
    import { StackShift } from '@stackshift-cloud/jobs'
    console.log((await new StackShift({ apiKey: 'k', baseUrl: '${fleet.url}' }).start('j')).id)`
  const begin = Date.now()
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], { cwd: root })
  assert.equal(stdout, 'r\n')
  assert.ok(Date.now() - begin < 4000)
  await fleet.stop()
})
