// A payment service tells of two payments: one of them five times at once, then again after the app was restarted. Forged, old
// and contradicting messages come too. The provisioner is busy at first.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { StackShift } from '@stackshift-cloud/jobs'
import { check, freePort, printTimeline, say, startApp, tell } from '../story.js'
import { sign } from './signature.js'

const secret = 'whsec-of-this-story'
const calls: string[] = [] // of the provisioner, by idempotency key
const accounts = new Map<string, string>()

/** It answers the first call with 503; a key that it knows gets the same account. */
const provisioner = createServer((request, response) => {
  request.resume()
  const key = String(request.headers['idempotency-key'])
  calls.push(key)
  if (calls.length === 1) {
    response.writeHead(503, { 'retry-after': '1' }).end()
    return
  }
  if (!accounts.has(key)) accounts.set(key, `account-${accounts.size + 1}`)
  response.writeHead(201, { 'content-type': 'application/json' }).end(JSON.stringify({ account: accounts.get(key) }))
}).listen(0, '127.0.0.1')
await once(provisioner, 'listening')

await tell(async () => {
  const stackshift = new StackShift()
  const port = await freePort()
  const env = {
    PORT: String(port), WEBHOOK_SECRET: secret,
    PROVISIONER_URL: `http://127.0.0.1:${(provisioner.address() as AddressInfo).port}`
  }
  const first = await startApp(import.meta.url, 'app.js', env)

  const deliver = async (payment: object, signature?: (body: string) => string):
  Promise<{ status: number, run?: string, created?: boolean }> => {
    const body = JSON.stringify({ type: 'payment.succeeded', data: payment })
    const response = await fetch(`http://127.0.0.1:${port}/webhooks/payments`, {
      method: 'POST', body, headers: { 'content-type': 'application/json', 'payment-signature': signature?.(body) ?? sign(secret, body) }
    })
    return { status: response.status, ...await response.json() as object }
  }
  const ada = { id: 'pay_123', customer: 'ada', plan: 'pro' }

  say('the payment pay_123 is told five times at once')
  const told = await Promise.all([1, 2, 3, 4, 5].map(() => deliver(ada)))
  check('each is answered with 200', told.map(({ status }) => status), [200, 200, 200, 200, 200])
  check('they are one run', new Set(told.map(({ run }) => run)).size, 1)
  check('one of them has made it', told.filter(({ created }) => created).length, 1)
  const run = told[0]!.run!

  say('what should not become a run')
  check('a forged signature is refused', (await deliver({ ...ada, id: 'pay_999' }, body => sign('guessed', body))).status, 401)
  check('a changed body is refused', (await deliver({ ...ada, id: 'pay_999' }, () => sign(secret, JSON.stringify(ada)))).status, 401)
  check('an old message is refused',
    (await deliver({ ...ada, id: 'pay_999' }, body => sign(secret, body, Math.floor(Date.now() / 1000) - 3600))).status, 401)
  check('the same payment with another plan is a conflict', (await deliver({ ...ada, plan: 'enterprise' })).status, 409)

  say('the run goes on: the provisioner is busy, and is asked again')
  const outcome = await stackshift.runs.result(run)
  check('it is completed', [outcome.status, outcome.result], ['completed', { account: 'account-1' }])

  say('the app is killed and started again; pay_123 is told once more, and pay_124 for the first time')
  await first.stop('SIGKILL')
  const second = await startApp(import.meta.url, 'app.js', env)
  const again = await deliver(ada)
  check('it is still the same run', [again.status, again.run, again.created], [200, run, false])
  const other = await deliver({ id: 'pay_124', customer: 'grace', plan: 'pro' })
  check('another payment is another run', [other.status, other.created, other.run !== run], [200, true, true])
  check('which is completed as well', (await stackshift.runs.result(other.run!)).status, 'completed')

  say('the check')
  await second.stop() // now all that it has printed is here
  const { runs } = await stackshift.runs.list({ queue: 'payments' })
  check('two payments, two runs', runs.map(({ idempotencyKey }) => idempotencyKey).sort(),
    ['payment:pay_123:provision', 'payment:pay_124:provision'])
  check('the provisioner was asked for pay_123 twice, with one key, and was busy once', calls.filter(key => key === calls[0]).length, 2)
  check('it has made two accounts', accounts.size, 2)
  check('each customer has one receipt', [first.count('receipt for pay_123'), second.count('receipt for pay_123'),
    first.count('receipt for pay_124'), second.count('receipt for pay_124')], [1, 0, 0, 1])

  say('the timeline of pay_123')
  await printTimeline(stackshift, run)
})
