// The public snippets, unchanged, against the fleet.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { Fleet, type ApiRequest } from './support/fleet.js'

let fleet: Fleet
let snippets: typeof import('./snippets/public.js')
const requests: ApiRequest[] = []

before(async () => {
  fleet = await Fleet.start()
  fleet.api = request => {
    requests.push(request)
    return request.path === '/v1/events' ? { status: 202, body: { id: 'e-1', created: true } } : { status: 201, body: { id: 'r-1', created: true } }
  }
  process.env.STACKSHIFT_URL = fleet.url
  process.env.STACKSHIFT_API_KEY = 'sk_test'
  process.env.STACKSHIFT_SIGNING_SECRET = fleet.secret
  snippets = await import('./snippets/public.js')
})
after(async () => { await fleet.stop() })

test('the calls are what the API expects', () => {
  assert.deepEqual(requests.map(({ method, path, headers, body }) => [method, path, headers.authorization, body]), [
    ['POST', '/v1/runs', 'Bearer sk_test', {
      job: 'send-verification-email', payload: { userId: 'user_123', email: 'ada@example.com' },
      queueName: 'emails', idempotencyKey: 'verify:user_123', idempotencyTtl: '30d'
    }],
    ['POST', '/v1/runs', 'Bearer sk_test', {
      job: 'provisionAfterPayment', payload: { paymentId: 'pay_123' }, queueName: 'payments',
      maxAttempts: 6, scheduledAt: '2026-05-06T09:00:00.000Z', idempotencyKey: 'payment:pay_123:provision'
    }],
    ['POST', '/v1/events', 'Bearer sk_test', {
      name: 'email.verified', payload: { userId: '123' }, correlationKey: 'user:123', idempotencyKey: 'email.verified:user:123'
    }]
  ])
})

test('the jobs do what they say', async () => {
  const server = createServer(snippets.stackshift.nodeHandler()).listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  try {
    const run = fleet.run('userOnboarding', { userId: '123', email: 'ada@example.com' })
    const waiting = await fleet.call(url, run)
    assert.deepEqual([waiting.status, waiting.ops], ['suspended', [
      { op: 'wait_event', name: 'email.verified', event: 'email.verified', correlationKey: 'user:123', timeout: '24h', onTimeout: 'fail' }
    ]])
    run.steps.push({
      name: 'email.verified', kind: 'wait_event', result: {
        timedOut: false, id: 'e-1', name: 'email.verified', correlationKey: 'user:123', payload: { userId: '123' }, receivedAt: '2026-05-06T09:00:00Z'
      }
    })
    const end = await fleet.call(url, run)
    assert.deepEqual([end.status, end.result], ['completed', { onboarded: true }])
    assert.deepEqual(snippets.effects, ['create 123', 'send ada@example.com', 'unlock 123'])
    assert.equal(fleet.state.get('onboarded:total')!.value, 1)
    assert.deepEqual(fleet.state.get('onboarding:last')!.value, { processed: 1 })

    const upload = await fleet.call(url, fleet.run('processUpload', { fileId: 'f', rows: [1, 2, 3] }))
    assert.equal(upload.status, 'completed')
    assert.deepEqual(snippets.effects.slice(3), ['import 2', 'import 1'])
    assert.equal(fleet.state.get('files:f:rows')!.value, 3)
  } finally {
    server.closeAllConnections()
    server.close()
  }
})
