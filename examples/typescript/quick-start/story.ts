// The README's quick start, as it is written there: hello.ts is taken out of it. It is killed while its run sleeps, and started again.

import { execFileSync } from 'node:child_process'
import { StackShift } from '@stackshift-cloud/jobs'
import { check, say, startApp, tell, until } from '../story.js'

await tell(async () => {
  const stackshift = new StackShift()
  const start = (): ReturnType<typeof startApp> => startApp(import.meta.url, 'hello.js', {}, 'durable run ')

  say('the ten lines are started; when their run sleeps, they get SIGKILL')
  const first = await start()
  const id = first.lines[0]!.slice('durable run '.length)
  await until('the run sleeps', async () => (await stackshift.runs.get(id)).waitingFor?.kind === 'sleep')
  await first.stop('SIGKILL')

  say('they are started again')
  const second = await start()
  check('it is the same run', second.lines[0], first.lines[0])
  check('it is completed', (await stackshift.runs.result(id)).status, 'completed')
  await second.stop() // now all that it has printed is here
  check('it has greeted once', [first.count('Hello'), second.lines.filter(line => line === 'Hello, Ada!').length], [0, 1])

  say('its timeline, in the terminal')
  const shown = execFileSync(process.env.STORY_DURABLE!, ['run', id], { encoding: 'utf8' })
  console.log(shown)
  check('it names what happened', ['started', 'attempt', 'write', 'sleep', 'say', 'completed'].filter(word => !shown.includes(word)), [])

  say('and over HTTP')
  const response = await fetch(`${process.env.STACKSHIFT_URL}/v1/runs/${id}/timeline`,
    { headers: { authorization: `Bearer ${process.env.STACKSHIFT_API_KEY}` } })
  const { timeline } = await response.json() as { timeline: { kind: string, name: string | null }[] }
  check('it is the same', timeline.map(({ kind, name }) => name === null ? kind : `${kind} ${name}`),
    ['started greet', 'attempt', 'step write', 'sleep sleep', 'step say', 'completed'])
})
