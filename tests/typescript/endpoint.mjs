// A process with handlers, for fleet.test.mjs: argument 1 is its port, 2 the file that each call of a step's function leaves a
// line in.

import { appendFileSync } from 'node:fs'
import { NonRetryableError, StackShift } from '../../sdk/typescript/dist/esm/index.js'

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

// Children that wait for each other inside of a step: they end only if all three run at once, and then the last is first.
const met = new Map()
stackshift.job('kid', async ({ payload: { n, group }, step }) => step.run('meet', async () => {
  met.set(group, (met.get(group) ?? new Set()).add(n))
  for (let i = 0; met.get(group).size < 3; i++) {
    if (i === 2000) throw new NonRetryableError('the others did not come')
    await pause(10)
  }
  await pause((3 - n) * 100)
  return n
}))
stackshift.job('three', ({ run, step }) => Promise.all([1, 2, 3].map(n => step.runJob('kid', { n, group: run.id }, { name: `kid-${n}` }))))
stackshift.job('race', async ({ payload, step }) => {
  const first = await Promise.race([
    step.waitForEvent('signed', { correlationKey: payload.key }).then(event => event.payload.by),
    step.sleep('patience', payload.patience).then(() => 'nobody')
  ])
  return step.run('after', () => first)
})
const declined = new Set()
stackshift.job('declined', async ({ run, step }) => {
  const call = name => appendFileSync(effects, `${run.id}\t${name}\t${new Date().toISOString()}\n`)
  const charged = await step.run('charge', () => {
    call('charge')
    if (!declined.has(run.id)) {
      declined.add(run.id)
      throw new Error('declined')
    }
    return true
  }).catch(() => false)
  await step.run('note', () => call('note'))
  if (!charged) throw new NonRetryableError('not charged')
  return 'charged'
})
stackshift.job('mood', async ({ run, step }) => {
  const { payload } = await step.waitForEvent('mood', { correlationKey: run.id })
  if (!payload.well) throw new NonRetryableError('in a bad mood')
  return 'well'
})
stackshift.job('family', async ({ step }) => await step.runJob('mood', {}))
stackshift.job('any', async ({ step }) => await step.waitForAny([{ event: 'paid' }, { event: 'refused', correlationKey: 'o1' }],
  { timeout: '1h', onTimeout: 'fail' }))
stackshift.job('locked', async ({ state }) => ({ got: await state.lock('door', { ttl: '1h' }) }))
stackshift.job('fails', async ({ step }) => { await step.run('never', () => { throw new Error('no luck') }) })

await stackshift.serve({ port: Number(port), name: 'endpoint' })
process.send?.('ready')
