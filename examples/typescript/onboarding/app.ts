// An Express app that onboards people: they sign up, get a mail, confirm their address, and are let in. The job is served by
// the app itself, at /jobs, beside the app's own routes.
//
// PORT, SMTP_URL, DATA (a folder for its users), STACKSHIFT_URL, STACKSHIFT_API_KEY, STACKSHIFT_SIGNING_SECRET (of the
// endpoint that /jobs is registered as)

import { createHmac, timingSafeEqual } from 'node:crypto'
import express from 'express'
import { createTransport } from 'nodemailer'
import { StackShift } from '@stackshift-cloud/jobs'
import { Users } from './users.js'

const port = Number(process.env.PORT)
const users = new Users(process.env.DATA!)
const mail = createTransport(process.env.SMTP_URL!)
const stackshift = new StackShift({ apiKey: process.env.STACKSHIFT_API_KEY! })

interface Signup {
  userId: string
  name: string
  email: string
  verifyWithin?: string
}

const onboarding = stackshift.job<Signup>('userOnboarding', async ({ payload, step, state }) => {
  const user = await step.run('create-user', () => users.create(payload.userId, payload.email))
  await step.run('send-verification-email', { maxAttempts: 8, backoff: { initial: '500ms' } },
    ({ idempotencyKey }) => sendVerificationEmail(payload, idempotencyKey))
  await step.waitForEvent('email.verified',
    { correlationKey: `user:${user.id}`, timeout: payload.verifyWithin ?? '24h', onTimeout: 'fail' })
  await step.run('unlock-account', () => users.unlock(user.id))
  const total = await state.increment('onboarded:total')
  return { onboarded: true, total }
})

/** Sent again after a crash, it has the same Message-ID: a receiver can tell. */
async function sendVerificationEmail({ userId, name, email }: Signup, idempotencyKey: string): Promise<void> {
  console.log(`mailing ${userId}`)
  await mail.sendMail({
    from: 'welcome@example.com',
    to: email,
    messageId: `<${idempotencyKey.replace(':', '.')}@example.com>`,
    subject: 'Please confirm your address',
    text: `Hello ${name},\n\nhttp://127.0.0.1:${port}/verify/${userId}/${tokenOf(userId)}\n`
  })
}

const app = express()
app.all('/jobs', stackshift.nodeHandler()) // before any body parser: signatures are over the bytes
app.use(express.json())

app.post('/signup', async (request, response) => {
  const { userId, name, email, verifyWithin } = request.body as Signup
  const run = await onboarding.start({ userId, name, email, verifyWithin }, { idempotencyKey: `onboard:${userId}` })
  response.status(202).json({ run: run.id, created: run.created })
})

app.get('/verify/:userId/:token', async (request, response) => {
  const { userId, token } = request.params
  const expected = tokenOf(userId)
  if (token.length !== expected.length || !timingSafeEqual(Buffer.from(token), Buffer.from(expected))) {
    response.status(403).send('this link is not one of ours')
    return
  }
  await stackshift.events.send('email.verified', { userId },
    { correlationKey: `user:${userId}`, idempotencyKey: `email.verified:user:${userId}` }) // a second click is the same event
  response.send('thank you')
})

app.get('/users/:userId', async (request, response) => {
  response.json(await users.find(request.params.userId))
})

app.listen(port, '127.0.0.1', () => console.log(`ready at http://127.0.0.1:${port}`))

function tokenOf(userId: string): string {
  return createHmac('sha256', process.env.STACKSHIFT_SIGNING_SECRET!).update(`verify ${userId}`).digest('hex').slice(0, 16)
}
