// An Express app that a payment service tells of payments, as such services do: signed, and now and then twice. Each payment
// becomes one run, however often it is told; the run provisions what was paid for.
//
// PORT, WEBHOOK_SECRET, PROVISIONER_URL (the service that provisions), STACKSHIFT_URL, STACKSHIFT_API_KEY

import express from 'express'
import { RetryAfterError, StackShift, StackShiftError } from '@stackshift-cloud/jobs'
import { signatureIsGood } from './signature.js'

const stackshift = new StackShift({ apiKey: process.env.STACKSHIFT_API_KEY! })

interface Payment {
  paymentId: string
  customer: string
  plan: string
}

stackshift.job<Payment>('provisionAfterPayment', async ({ payload, step }) => {
  const account = await step.run('provision', ({ idempotencyKey, signal }) => provision(payload, idempotencyKey, signal))
  await step.run('send-receipt', () => console.log(`receipt for ${payload.paymentId}`))
  return account
})

/** The service knows the key: if this process dies before the result is kept, the second call gives the same account. */
async function provision({ customer, plan }: Payment, idempotencyKey: string, signal: AbortSignal): Promise<{ account: string }> {
  const response = await fetch(`${process.env.PROVISIONER_URL}/accounts`, {
    method: 'POST', signal, headers: { 'idempotency-key': idempotencyKey }, body: JSON.stringify({ customer, plan })
  })
  if (response.status === 503) throw new RetryAfterError('the provisioner is busy', `${response.headers.get('retry-after') ?? 5}s`)
  if (!response.ok) throw new Error(`the provisioner answers ${response.status}`)
  return await response.json() as { account: string }
}

interface WebhookEvent {
  type: string
  data: { id: string, customer: string, plan: string }
}

const app = express()

app.post('/webhooks/payments', express.raw({ type: 'application/json' }), async (request, response) => {
  const body = request.body as Buffer // as it came: the signature is over the bytes
  if (!signatureIsGood(process.env.WEBHOOK_SECRET!, request.get('payment-signature'), body)) {
    response.status(401).json({ error: 'the signature does not fit' })
    return
  }
  const { type, data } = JSON.parse(body.toString()) as WebhookEvent
  if (type !== 'payment.succeeded') {
    response.status(204).end()
    return
  }
  try {
    // The payload is the payment, and nothing of this delivery: a payload that differs would be another start under the same key.
    const run = await stackshift.queue('payments').enqueue('provisionAfterPayment',
      { paymentId: data.id, customer: data.customer, plan: data.plan },
      { maxAttempts: 6, idempotencyKey: `payment:${data.id}:provision` })
    response.json({ run: run.id, created: run.created }) // only now: what is answered with 200 is not lost
  } catch (error) {
    if (!(error instanceof StackShiftError)) throw error
    // 409: the payment was told before, and otherwise. Anything else: the payment service will say it again.
    response.status(error.code === 'idempotency_conflict' ? 409 : 503).json({ error: error.detail })
  }
})

await stackshift.serve({ port: 0, name: 'payments' }) // on a port of its own: the world need not reach it
app.listen(Number(process.env.PORT), '127.0.0.1', () => console.log(`ready at http://127.0.0.1:${process.env.PORT}`))
