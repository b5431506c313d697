// Serving: signatures, what a worker learns by GET, registration, and the ways to mount the jobs.

import assert from 'node:assert/strict'
import { createHmac, webcrypto } from 'node:crypto'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { StackShift, StackShiftError } from '@stackshift-cloud/jobs'
import { checkerOf, distrust, secretsOf } from '#sdk/signature.js'
import { platform } from '#sdk/platform.js'
import { pause, until } from './support/app.js'
import { Fleet, type ApiRequest } from './support/fleet.js'

let fleet: Fleet
before(async () => { fleet = await Fleet.start() })
after(async () => { await fleet.stop() })

const OTHER = `whsec_${Buffer.from('another secret, not the one').toString('base64')}`

function make(): StackShift {
  const stackshift = new StackShift({ apiKey: 'key', baseUrl: fleet.url, version: 'v7', retryFor: '2s', onWarning: () => {} })
  stackshift.job('hello', { maxAttempts: 3, backoff: { initial: '2s' }, timeout: 60_000, version: 'v8' },
    async ({ payload, step }) => step.run('greet', () => `hello, ${payload.name}`))
  stackshift.job('other', () => 1)
  return stackshift
}

function counting(): { calls: { handler: number, step: number }, stackshift: StackShift } {
  const calls = { handler: 0, step: 0 }
  const stackshift = new StackShift({ apiKey: 'key', baseUrl: fleet.url, onWarning: () => {} })
  stackshift.job('counts', async ({ step }) => {
    calls.handler++
    await Promise.resolve() // work of its own
    return step.run('step', () => { calls.step++ })
  })
  return { calls, stackshift }
}

async function listen(listener: RequestListener): Promise<{ url: string, close: () => Promise<void> }> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jobs`,
    close: () => new Promise(resolve => { server.closeAllConnections(); server.close(() => resolve()) })
  }
}

describe('signatures', () => {
  const AT = 1_780_000_000
  const TEXT = '{"protocol":1,"payload":{"b":1.0,"a":"\\u00e9"}}'
  const mac = (secret = fleet.secret, id = 'm', at = AT, text = TEXT): string =>
    createHmac('sha256', Buffer.from(secret.slice(6), 'base64')).update(`${id}.${at}.${text}`).digest('base64')

  // What a request has that differs from a good one; `trusted` where that is no harm.
  interface Row { name: string, id?: string, timestamp?: string, signature?: () => string | undefined, body?: string, secrets?: () => string, off?: number, trusted?: true }
  const rows: Row[] = [
    { name: 'as it should be', trusted: true },
    { name: '4:59 minutes old', off: 299, trusted: true },
    { name: '4:59 minutes ahead', off: -299, trusted: true },
    { name: 'several signatures, one of them right', signature: () => `v1,AAAA v2,${mac()} v1,${mac(OTHER)} v1,${mac()}`, trusted: true },
    { name: 'a rotation here: the new secret and the old one', secrets: () => `${OTHER}, ${fleet.secret}`, trusted: true },
    { name: 'a rotation there: signed with both', signature: () => `v1,${mac(OTHER)} v1,${mac()}`, trusted: true },
    { name: 'over 5 minutes old', off: 301 },
    { name: 'over 5 minutes ahead', off: -301 },
    { name: 'an hour old, signed so', timestamp: String(AT - 3600), signature: () => `v1,${mac(fleet.secret, 'm', AT - 3600)}` },
    { name: 'old, with a newer time', signature: () => `v1,${mac(fleet.secret, 'm', AT - 3600)}` },
    { name: 'a time that is none', timestamp: 'now' },
    { name: 'a time with a fraction', timestamp: `${AT}.5` },
    { name: 'no time', timestamp: '' },
    { name: 'another id: the same call said again as a new one', id: 'n' },
    { name: 'an id that takes from the time', id: `m.${AT}` },
    { name: 'no signature', signature: () => undefined },
    { name: 'an empty signature', signature: () => '' },
    { name: 'another secret', signature: () => `v1,${mac(OTHER)}` },
    { name: 'only the secret of before the rotation', secrets: () => OTHER },
    { name: 'a truncated signature', signature: () => `v1,${Buffer.from(mac(), 'base64').subarray(0, 16).toString('base64')}` },
    { name: 'a signature of one byte', signature: () => `v1,${Buffer.from(mac(), 'base64').subarray(0, 1).toString('base64')}` },
    { name: 'an empty v1', signature: () => 'v1,' },
    { name: 'a signature with a byte behind it', signature: () => `v1,${Buffer.concat([Buffer.from(mac(), 'base64'), Buffer.of(0)]).toString('base64')}` },
    { name: 'no base64', signature: () => 'v1,%%% garbage' },
    { name: 'hexadecimal', signature: () => `v1,${Buffer.from(mac(), 'base64').toString('hex')}` },
    { name: 'another version', signature: () => `v2,${mac()}` },
    { name: 'an asymmetric version', signature: () => `v1a,${mac()}` },
    { name: 'no version', signature: () => mac() },
    { name: 'the right one behind 16 others', signature: () => `${'v1,AAAA '.repeat(16)}v1,${mac()}` },
    { name: 'a body changed by a byte', body: TEXT.replace('1.0', '1.1') },
    { name: 'a body with a space behind it', body: `${TEXT} ` },
    { name: 'an empty body', body: '' },
    { name: 'a body parsed and written again', body: JSON.stringify(JSON.parse(TEXT)) }
  ]
  for (const row of rows) {
    test(`${row.trusted === true ? 'trusted' : 'refused'}: ${row.name}`, async () => {
      (globalThis as { crypto?: unknown }).crypto ??= webcrypto // Node 18 hides it
      const signed = { id: row.id ?? 'm', timestamp: row.timestamp ?? String(AT), signature: row.signature === undefined ? `v1,${mac()}` : row.signature() }
      for (const checker of [checkerOf(await platform()), checkerOf({})]) { // Node's, Web Crypto's
        const why = await distrust(signed, Buffer.from(row.body ?? TEXT), secretsOf(row.secrets?.() ?? fleet.secret), checker,
          (AT + (row.off ?? 0)) * 1000)
        if (row.trusted === true) assert.equal(why, undefined)
        else assert.match(why!, /does not fit|5 minutes off|not signed/)
      }
    })
  }

  test('the example that Standard Webhooks publishes is trusted', async () => {
    const signed = { id: 'msg_p5jXN8AQM9LWM0D4loKWxJek', timestamp: '1614265330', signature: 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=' }
    const secrets = secretsOf('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')
    const why = async (body: string): Promise<string | undefined> =>
      distrust(signed, Buffer.from(body), secrets, checkerOf(await platform()), 1614265330000)
    assert.equal(await why('{"test": 2432232314}'), undefined)
    assert.match((await why('{"test":2432232314}'))!, /does not fit/)
  })

  test('no changed byte of a signature, an id or a body is trusted', async () => {
    const check = checkerOf(await platform())
    const right = Buffer.from(mac(), 'base64')
    const asks = (signature: Buffer, id: string, body: Buffer): Promise<string | undefined> =>
      distrust({ id, timestamp: String(AT), signature: `v1,${signature.toString('base64')}` }, body, secretsOf(fleet.secret), check, AT * 1000)
    const changed = (bytes: Buffer, at: number): Buffer => { const copy = Buffer.from(bytes); copy[at]! ^= 1; return copy }
    assert.equal(await asks(right, 'm', Buffer.from(TEXT)), undefined)
    for (let i = 0; i < right.length; i++) assert.match((await asks(changed(right, i), 'm', Buffer.from(TEXT)))!, /does not fit/)
    for (let i = 0; i < TEXT.length; i++) assert.match((await asks(right, 'm', changed(Buffer.from(TEXT), i)))!, /does not fit/)
  })

  test('a secret that is none is refused', () => {
    assert.throws(() => secretsOf('whsec_***'), StackShiftError)
    assert.throws(() => secretsOf(' , '), StackShiftError)
  })
})

describe('nodeHandler', () => {
  test('runs jobs, describes them, and answers 401, 405 and 200 as it should', async () => {
    const app = await listen(make().nodeHandler({ signingSecret: fleet.secret }))
    try {
      assert.equal((await fleet.call(app.url, fleet.run('hello', { name: 'Ada' }))).result, 'hello, Ada')

      const described = await fleet.post(app.url, '', { method: 'GET' })
      assert.equal(described.headers['content-type'], 'application/json')
      assert.deepEqual(JSON.parse(described.body), {
        protocol: 1, version: 'v7', jobs: [{ name: 'hello', maxAttempts: 3, backoff: { initial: '2s' }, timeout: '60000ms', version: 'v8' }, { name: 'other' }]
      })

      assert.equal((await fleet.post(app.url, '{}', { secret: OTHER })).status, 401)
      assert.equal((await fleet.post(app.url, '', { method: 'GET', secret: OTHER })).status, 401)
      assert.equal((await fleet.post(app.url, '{}', { timestamp: Math.floor(Date.now() / 1000) - 400 })).status, 401)
      assert.equal((await fleet.post(app.url, '{}', { headers: { 'webhook-id': 'another' } })).status, 401)
      assert.equal((await fleet.post(app.url, '{}', { method: 'PUT' })).status, 405)

      for (const [body, message] of [
        ['{', /not JSON/], ['{"protocol":2}', /protocol 2 is not spoken/], ['null', /protocol undefined/],
        [JSON.stringify({ protocol: 1, run: { job: 'gone' } }), /job gone is not served here; these are: hello, other/]
      ] as const) {
        const answer = await fleet.post(app.url, body)
        const { protocol, ops, status, error } = JSON.parse(answer.body)
        assert.deepEqual([answer.status, protocol, ops, status, error.retryable], [200, 1, [], 'failed', undefined])
        assert.match(error.message, message)
      }
    } finally {
      await app.close()
    }
  })

  test('says how to keep the bytes where a body parser ran before, and takes them where they were kept', async () => {
    const warnings: string[] = []
    const stackshift = new StackShift({ onWarning: message => warnings.push(message) })
    stackshift.job('hello', () => 'hello')
    const handler = stackshift.nodeHandler({ signingSecret: fleet.secret })
    const parsed = (keep: 'no' | 'rawBody' | 'bytes' | 'text'): RequestListener => async (req, res) => {
      const chunks: Buffer[] = []
      for await (const chunk of req) chunks.push(chunk as Buffer)
      const bytes = Buffer.concat(chunks)
      const body = keep === 'bytes' ? bytes : keep === 'text' ? bytes.toString() : JSON.parse(bytes.toString())
      handler(Object.assign(req, { body }, keep === 'rawBody' && { rawBody: bytes }), res)
    }
    for (const keep of ['rawBody', 'bytes', 'text'] as const) {
      const app = await listen(parsed(keep))
      assert.equal((await fleet.call(app.url, fleet.run('hello'))).result, 'hello')
      await app.close()
    }
    const app = await listen(parsed('no'))
    const { status, body } = await fleet.post(app.url, '{}')
    assert.equal(status, 500)
    assert.match(body, /mount nodeHandler\(\) before express\.json\(\)/)
    assert.match(warnings[0]!, /before express\.json/)
    await app.close()
  })

  test('no step begins for a worker that has hung up before we listened', async () => {
    const { calls, stackshift } = counting()
    const handler = stackshift.nodeHandler({ signingSecret: fleet.secret })
    const hangUp = new AbortController()
    const app = await listen(async (req, res) => {
      const chunks: Buffer[] = []
      for await (const chunk of req) chunks.push(chunk as Buffer)
      hangUp.abort()
      await new Promise(resolve => res.once('close', resolve))
      handler(Object.assign(req, { rawBody: Buffer.concat(chunks) }), res)
    })
    await assert.rejects(fleet.call(app.url, fleet.run('counts'), { signal: hangUp.signal }))
    await until(() => calls.handler === 1)
    await pause(50)
    assert.equal(calls.step, 0)
    await app.close()
  })

  test('without a secret it says which one is missing', async () => {
    const stackshift = new StackShift({ onWarning: () => {} })
    const before = process.env.STACKSHIFT_SIGNING_SECRET
    delete process.env.STACKSHIFT_SIGNING_SECRET
    const app = await listen(stackshift.nodeHandler())
    const { status, body } = await fleet.post(app.url, '{}')
    assert.equal(status, 500)
    assert.match(body, /set STACKSHIFT_SIGNING_SECRET/)
    if (before !== undefined) process.env.STACKSHIFT_SIGNING_SECRET = before
    await app.close()
  })
})

describe('fetchHandler', () => {
  const requestOf = (body: string, headers = fleet.sign(body)): Request => new Request('http://edge/jobs', { method: 'POST', body, headers })

  test('runs jobs from Request to Response, in commit mode and in answer mode', async () => {
    const handler = make().fetchHandler({ signingSecret: `${OTHER} ${fleet.secret}` })
    const run = fleet.run('hello', { name: 'Ada' })
    const body = (commit: unknown): string => JSON.stringify({
      protocol: 1, run: { ...run, queueName: 'q' }, payload: run.payload, steps: [], commit
    })
    const response = await handler(requestOf(body({ url: `${fleet.url}/v1/commit`, token: run.token, maxRunMs: 1000 })))
    assert.equal(response.status, 200)
    assert.deepEqual(await response.json(), { protocol: 1, ops: [], status: 'completed', result: 'hello, Ada' })
    const answer = await (await handler(requestOf(body(null)))).json() as { status: string, ops: unknown[] }
    assert.deepEqual([answer.status, answer.ops.length], ['continue', 1])
  })

  test('no step begins for whoever has hung up before we listened', async () => {
    const { calls, stackshift } = counting()
    const run = fleet.run('counts')
    const body = JSON.stringify({ protocol: 1, run: { ...run, queueName: 'q' }, payload: {}, steps: [], commit: null })
    const request = new Request(requestOf(body), { signal: AbortSignal.abort() })
    const answer = await (await stackshift.fetchHandler({ signingSecret: fleet.secret })(request)).json() as { status: string }
    assert.equal(answer.status, 'continue')
    assert.deepEqual(calls, { handler: 1, step: 0 })
  })

  test('answers 401 to a bad signature, and describes the jobs', async () => {
    const handler = make().fetchHandler({ signingSecret: fleet.secret })
    assert.equal((await handler(requestOf('{}', fleet.sign('{"a":1}')))).status, 401)
    const described = await handler(new Request('http://edge/', { headers: fleet.sign('') }))
    assert.equal((await described.json() as { version: string }).version, 'v7')
  })
})

describe('serve', () => {
  test('registers itself, reads the secret, and has its jobs read after that', async () => {
    const requests: ApiRequest[] = []
    const told: number[] = []
    let url = ''
    fleet.api = async request => {
      requests.push(request)
      if (request.method === 'PUT') {
        url = (request.body as { url: string }).url
        told.push((await fleet.post(url, '', { method: 'GET' })).status) // before it can know the secret
        return { status: 200, body: { name: 'my/app', url, secret: fleet.secret, jobs: [] } }
      }
      told.push((await fleet.post(url, '', { method: 'GET' })).status)
      return { status: 200, body: {} }
    }
    const serving = await make().serve({ port: 0, name: '@my/app' })
    try {
      assert.deepEqual(requests.map(({ method, path }) => [method, path]), [
        ['PUT', '/v1/endpoints/%40my%2Fapp'], ['POST', '/v1/endpoints/%40my%2Fapp/sync']
      ])
      assert.deepEqual([requests[0]!.body, requests[0]!.headers.authorization], [{ url: serving.url }, 'Bearer key'])
      assert.equal(serving.url, `http://127.0.0.1:${serving.port}`)
      assert.deepEqual(told, [503, 200])
      assert.equal((await fleet.call(serving.url, fleet.run('hello', { name: 'Bo' }))).result, 'hello, Bo')
    } finally {
      await serving.close()
    }
    await assert.rejects(fleet.post(serving.url, '{}'))
  })

  test('is named after the package, has the url that it is given, and a fresh secret where it gets none', async () => {
    const paths: string[] = []
    fleet.api = request => {
      paths.push(`${request.method} ${request.path} ${request.text}`)
      return { status: 200, body: request.path.endsWith('rotate-secret') ? { secret: fleet.secret } : { jobs: ['hello', { name: 'other' }] } }
    }
    const serving = await make().serve({ port: 0, url: 'https://jobs.example.com/x', host: '127.0.0.1' })
    assert.equal(serving.name, '@stackshift-cloud/jobs')
    assert.deepEqual(paths, [
      'PUT /v1/endpoints/%40stackshift-cloud%2Fjobs {"url":"https://jobs.example.com/x"}',
      'POST /v1/endpoints/%40stackshift-cloud%2Fjobs/rotate-secret '
    ])
    await serving.close()
  })

  test('with a signing secret it does not register', async () => {
    fleet.api = () => { throw new Error('was asked') }
    const serving = await make().serve({ port: 0, signingSecret: fleet.secret })
    assert.equal((await fleet.call(serving.url, fleet.run('other'))).result, 1)
    await serving.close()
  })

  test('without a right to register it says so, and does not listen on', async () => {
    fleet.api = () => ({ status: 403, body: { code: 'forbidden', status: 403, detail: 'the key has no scope admin' } })
    await assert.rejects(make().serve({ port: 0, name: 'x' }), (error: StackShiftError) => error.code === 'forbidden' && error.detail === 'the key has no scope admin')
  })
})
