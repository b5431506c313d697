// The lines that are shown in public, as they are. What they take for granted is below them.

import { StackShift } from '@stackshift-cloud/jobs'
const stackshift = new StackShift({ apiKey: process.env.STACKSHIFT_API_KEY! })

await stackshift.start('send-verification-email', { userId: 'user_123', email: 'ada@example.com' },
  { queueName: 'emails', idempotencyKey: 'verify:user_123', idempotencyTtl: '30d' })

await stackshift.queue('payments').enqueue('provisionAfterPayment', { paymentId: 'pay_123' },
  { maxAttempts: 6, scheduledAt: '2026-05-06T09:00:00.000Z', idempotencyKey: 'payment:pay_123:provision' })

stackshift.job<{ userId: string; email: string }>('userOnboarding', async ({ payload, step, state }) => {
  const user = await step.run('create-user', () => createUser(payload))
  await step.run('send-verification-email', () => sendVerificationEmail(user.email))
  const event = await step.waitForEvent<{ userId: string }>('email.verified',
    { correlationKey: `user:${payload.userId}`, timeout: '24h', onTimeout: 'fail' })   // fail | continue | cancel
  await step.run('unlock-account', () => unlockAccount(event.payload.userId))
  const done = await state.increment(`onboarded:total`)
  await state.set('onboarding:last', { processed: done }, { expiresAt: new Date(Date.now() + 7 * 864e5) })
  return { onboarded: true }
})

stackshift.job('processUpload', async ({ payload, state }) => {      // work between durable calls is done once an attempt
  for (const batch of batchesOf(payload)) { await importRows(batch); await state.increment(`files:${payload.fileId}:rows`, batch.length) }
})

await stackshift.events.send('email.verified', { userId: '123' },
  { correlationKey: 'user:123', idempotencyKey: 'email.verified:user:123' })

// ---

export { stackshift }
export const effects: string[] = []

async function createUser(payload: { userId: string, email: string }): Promise<{ id: string, email: string, createdAt: Date }> {
  effects.push(`create ${payload.userId}`)
  return { id: payload.userId, email: payload.email, createdAt: new Date(0) }
}

async function sendVerificationEmail(email: string): Promise<void> {
  effects.push(`send ${email}`)
}

function unlockAccount(userId: string): void {
  effects.push(`unlock ${userId}`)
}

function batchesOf(payload: { rows: number[] }): number[][] {
  return [payload.rows.slice(0, 2), payload.rows.slice(2)]
}

async function importRows(batch: number[]): Promise<void> {
  effects.push(`import ${batch.length}`)
}
