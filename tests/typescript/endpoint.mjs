// A process with handlers, for fleet.test.mjs: argument 1 is its port, 2 the file that each call of a step's function leaves a
// line in.

import { appendFileSync } from 'node:fs'
import { StackShift } from '../../sdk/typescript/dist/esm/index.js'

const [port, effects] = process.argv.slice(2)
const stackshift = new StackShift({ apiKey: process.env.STACKSHIFT_API_KEY })
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

stackshift.job('five', async ({ run, step }) => {
  for (let i = 1; i <= 5; i++) {
    await step.run(`s${i}`, async () => {
      appendFileSync(effects, `${run.id}\ts${i}\t${new Date().toISOString()}\n`)
      await pause(Math.random() * 20)
      return i
    })
  }
  return 'done'
})
stackshift.job('hundred', async ({ run, step }) => {
  appendFileSync(effects, `${run.id}\tcall\t${new Date().toISOString()}\n`)
  for (let i = 1; i <= 100; i++) await step.run(`s${i}`, () => i)
  return 100
})
stackshift.job('parent', async ({ step }) => ({ child: await step.runJob('five', {}) }))
stackshift.job('any', async ({ step }) => await step.waitForAny([{ event: 'paid' }, { event: 'refused', correlationKey: 'o1' }],
  { timeout: '1h', onTimeout: 'fail' }))
stackshift.job('locked', async ({ state }) => ({ got: await state.lock('door', { ttl: '1h' }) }))
stackshift.job('fails', async ({ step }) => { await step.run('never', () => { throw new Error('no luck') }) })

await stackshift.serve({ port: Number(port), name: 'endpoint' })
process.send?.('ready')
