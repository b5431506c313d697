// Four people sign up. The mail server refuses one of them twice, and lets another one's mail wait: then the app is killed.
// One never confirms.

import { readdir, readFile } from 'node:fs/promises'
import { StackShift } from '@stackshift-cloud/jobs'
import { check, freePort, Program, printTimeline, say, startApp, tell, until } from '../story.js'

const people = [
  { userId: '101', name: 'Ada Lovelace', email: 'ada@example.com' },
  { userId: '102', name: 'Grace Hopper', email: 'grace@example.com' },
  { userId: '103', name: 'Maggie Hamilton', email: 'maggie@example.com' },
  { userId: '104', name: 'Zoë Çelik', email: 'zoe@example.com', verifyWithin: '3s' }
]
const confirming = people.filter(({ verifyWithin }) => verifyWithin === undefined)

await tell(async () => {
  const folder = process.env.STORY_DIR!
  const maildir = `${folder}/mail`
  const mails = await Program.start('the mail server', process.env.STORY_MAIL_SERVER!,
    ['--maildir', maildir, '--greylist', 'grace@example.com', '--tarpit', 'maggie@example.com'], {}, 'listening on ')
  const smtpUrl = `smtp://${mails.lines[0]!.slice('listening on '.length)}`

  say('the app is registered: the endpoint gets its secret, and the app is started with it')
  const stackshift = new StackShift()
  const port = await freePort()
  const app = `http://127.0.0.1:${port}`
  const { secret } = await api('PUT', '/v1/endpoints/onboarding', { url: `${app}/jobs` })
  const env = { PORT: String(port), SMTP_URL: smtpUrl, DATA: `${folder}/users`, STACKSHIFT_SIGNING_SECRET: secret as string }
  const first = await startApp(import.meta.url, 'app.js', env)
  await api('POST', '/v1/endpoints/onboarding/sync')

  say('four people sign up, and click twice')
  const runs = new Map<string, string>()
  for (const person of [...people, ...people]) {
    const { run, created } = await json(`${app}/signup`, person)
    if (created) runs.set(person.userId, run as string)
    else check(`${person.name}'s second click gives the same run`, run, runs.get(person.userId))
  }

  say('the mail server holds the mail for Maggie; the app gets SIGKILL, and is started again')
  await until('her mail is held', () => mails.count('holding maggie') === 1)
  for (const { userId, name } of people.filter(({ userId }) => userId !== '103')) {
    await until(`${name} has a mail, and the run knows it`, async () => {
      const { status, waitingFor } = await stackshift.runs.get(runs.get(userId)!)
      return status === 'failed' || waitingFor?.kind === 'event'
    })
  }
  await first.stop('SIGKILL')
  const second = await startApp(import.meta.url, 'app.js', env)
  await until('all four mails are there', () => mails.count('delivered') === 4)

  say('three follow the link in their mail, Ada twice')
  for (const { email } of [...confirming, people[0]!]) {
    const mail = (await mailbox(maildir)).find(text => text.includes(`To: ${email}`))!
    const link = /http:\S+/.exec(mail)![0]
    check(`${email} confirms`, await (await fetch(link)).text(), 'thank you')
  }
  check('a link with a wrong token is refused', (await fetch(`${app}/verify/104/0123456789abcdef`)).status, 403)

  say('the check')
  const totals: number[] = []
  for (const { userId, name } of confirming) {
    const outcome = await stackshift.runs.result<{ onboarded: boolean, total: number }>(runs.get(userId)!)
    check(`${name} is onboarded`, outcome.result?.onboarded)
    totals.push(outcome.result?.total ?? 0)
    check(`${name} is let in`, (await json(`${app}/users/${userId}`)).unlocked)
  }
  const late = await stackshift.runs.result(runs.get('104')!)
  check('Zoë, who never confirms, is not', [late.status, late.error?.name], ['failed', 'WaitTimeoutError'])
  check('the counter has counted each of them once', totals.sort(), [1, 2, 3])
  check('each person has one mail', mails.lines.filter(line => line.startsWith('delivered')).sort(),
    people.map(({ email }) => `delivered ${email}`).sort())
  check('the mail server refused Grace twice, and the step was tried again', mails.count('refused grace'), 2)
  await second.stop() // now all that it has printed is here
  for (const { userId, name } of people) {
    const calls = (what: string): number => first.count(`${what} ${userId}`) + second.count(`${what} ${userId}`)
    check(`${name} was created once`, calls('creating'), 1)
    check(`${name} was unlocked once, or never`, calls('unlocking'), userId === '104' ? 0 : 1)
  }

  say('the timeline of Maggie, in whose step the app was killed')
  await printTimeline(stackshift, runs.get('103')!)
})

async function mailbox(maildir: string): Promise<string[]> {
  const names = await readdir(`${maildir}/new`)
  return Promise.all(names.map(name => readFile(`${maildir}/new/${name}`, 'utf8')))
}

async function json(url: string, body?: unknown, method = body === undefined ? 'GET' : 'POST', headers: Record<string, string> = {}):
Promise<Record<string, unknown>> {
  const response = await fetch(url, {
    method, headers: { 'content-type': 'application/json', ...headers }, body: body === undefined ? undefined : JSON.stringify(body)
  })
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${await response.text()}`)
  return await response.json() as Record<string, unknown>
}

/** What an operator does once, with `curl`. */
function api(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
  return json(process.env.STACKSHIFT_URL + path, body, method, { authorization: `Bearer ${process.env.STACKSHIFT_API_KEY}` })
}
