// The handlers in TypeScript's SDK that tests/bench/handlers.py measures. Says `ready` once it is registered.

import { StackShift } from '../../../sdk/typescript/dist/esm/index.js'

const stackshift = new StackShift()
const median = times => times.sort((a, b) => a - b)[times.length >> 1]

stackshift.job('five', async ({ step }) => {
  for (let i = 1; i <= 5; i++) await step.run(`step-${i}`, () => i)
  return 'done'
})

let calls = 0
let costs
// The first attempt makes a long history, the second one only reads it.
stackshift.job('history', async ({ payload, run, step }) => {
  const times = []
  const began = performance.now()
  calls++
  for (let i = 1; i <= payload.steps; i++) {
    const asked = performance.now()
    await step.run(`s${i}`, () => i)
    times.push(performance.now() - asked)
  }
  if (run.attempt > 1) return { ...costs, calls, replay: performance.now() - began }
  costs = { early: median(times.slice(4, 50)), late: median(times.slice(-101, -1)) }
  throw new Error('once more')
})

await stackshift.serve({ port: 0, name: 'bench' })
console.log('ready')
