// A file of 5,000 customers is imported; the process is killed in the middle of it, and started again.

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'
import { StackShift } from '@stackshift-cloud/jobs'
import { check, printTimeline, say, startApp, tell, until } from '../story.js'

const ROWS = 5000
const BATCHES = 50
const REJECTED = 50 // each hundredth has no address

await tell(async () => {
  const target = `${process.env.STORY_DIR}/customers`
  const file = `${process.env.STORY_DIR}/customers.csv`
  await mkdir(target)
  const lines = Array.from({ length: ROWS }, (_, i) =>
    `${i},"Customer ""${i}"", Inc.",${i % 100 === 99 ? 'nobody' : `customer-${i}@example.com`}\r\n`)
  await writeFile(file, `id,name,email\r\n${lines.join('')}`)

  say(`the app starts, and an import of ${ROWS} rows`)
  const stackshift = new StackShift()
  const first = await startApp(import.meta.url, 'app.js', { TARGET: target })
  const run = await stackshift.start('importCustomers', { importId: 'may', file }, { idempotencyKey: 'import:may' })
  await until('20 batches are imported', () => first.count('imported ') >= 20)
  await first.stop('SIGKILL')
  // A commit that was on its way when the process died has come in by now, or never does.
  const committed = await settled(async () => (await stackshift.runs.steps(run.id)).map(({ name }) => String(name))
    .filter(name => name.startsWith('rows-')).map(name => name.slice('rows-'.length)))
  say(`it gets SIGKILL: ${committed.length} of ${BATCHES} batches are committed; counter: ${await counter('imported')}`)
  check('it was killed in the middle', committed.length > 0 && committed.length < BATCHES)

  say('it is started again, and goes on')
  const second = await startApp(import.meta.url, 'app.js', { TARGET: target })
  let seen = ''
  await until('the run ends', async () => {
    const line = `  ${await counter('imported')} rows imported, ${await counter('rejected')} rejected`
    if (line !== seen) console.log(seen = line)
    return (await stackshift.runs.result(run.id, { wait: '200ms' })).status === 'completed'
  })

  say('the check')
  await second.stop() // now all that it has printed is here
  const outcome = await stackshift.runs.result(run.id)
  check('the run is completed, and has counted right', [outcome.status, outcome.result],
    ['completed', { imported: ROWS - REJECTED, rejected: REJECTED }])
  check('the counters say the same', [await counter('imported'), await counter('rejected')], [ROWS - REJECTED, REJECTED])
  check('no batch that was committed was imported again', committed.filter(from => second.lines.includes(`imported ${from}`)), [])
  const calls = first.count('imported ') + second.count('imported ')
  check('at most the one in hand was imported twice', calls === BATCHES || calls === BATCHES + 1)
  const ids = (await Promise.all((await readdir(target)).filter(name => name.endsWith('.json'))
    .map(async name => JSON.parse(await readFile(`${target}/${name}`, 'utf8')) as { id: string }[]))).flat().map(({ id }) => Number(id))
  check('each customer is there once', ids.sort((a, b) => a - b), Array.from({ length: ROWS }, (_, i) => i).filter(i => i % 100 !== 99))
  const done = (await stackshift.runs.logs(run.id)).filter(({ level }) => level === 'progress')
    .map(({ fields }) => (fields as { done: number }).done)
  check('its progress only grew, up to the end', [isDeepStrictEqual(done, [...new Set(done)].sort((a, b) => a - b)), done.at(-1)],
    [true, ROWS])

  say('the beginning and the end of its timeline')
  await printTimeline(stackshift, run.id, 8)

  async function counter(name: string): Promise<number> {
    return (await stackshift.state.get<number>(`imports:may:${name}`))?.value ?? 0
  }
})

/** What `look` gives once it gives the same for half a second. */
async function settled<T>(look: () => Promise<T[]>): Promise<T[]> {
  for (let before = await look(); ;) {
    await new Promise(resolve => setTimeout(resolve, 500))
    const now = await look()
    if (now.length === before.length) return now
    before = now
  }
}
