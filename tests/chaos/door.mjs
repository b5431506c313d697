// The SDK as a client's door: takes calls as lines of JSON, [method, ...arguments], and answers each with {"result"} or
// {"code", "status"}. From the environment: STACKSHIFT_API_KEY, CHAOS_SERVERS.

import { createInterface } from 'node:readline'
import { StackShift } from '../../sdk/typescript/dist/esm/index.js'

const doors = process.env.CHAOS_SERVERS.split(' ').map(baseUrl => new StackShift({ baseUrl, timeout: '5s', retryFor: '6s' }))
const calls = {
  start: (stackshift, job, payload, options) => stackshift.start(job, payload, options).then(run => run.id),
  send: (stackshift, event, payload, options) => stackshift.events.send(event, payload, options).then(sent => sent.id),
  increment: (stackshift, key) => stackshift.state.increment(key),
  cancel: (stackshift, run) => stackshift.runs.cancel(run),
  retry: (stackshift, run) => stackshift.runs.retry(run, { maxAttempts: 3 }),
  release: (stackshift, key) => stackshift.releaseKey(key)
}

for await (const line of createInterface({ input: process.stdin })) {
  const [method, ...rest] = JSON.parse(line)
  let answer
  try {
    answer = { result: await calls[method](doors[0], ...rest) ?? null }
  } catch (error) {
    answer = { code: error.code ?? String(error), status: error.status ?? 0 }
    doors.push(doors.shift()) // the other server, next time
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
