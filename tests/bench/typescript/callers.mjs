// Callers of a job of five steps, each with one run at a time: of ours, or of a peer's, by the same client.
//
// callers.mjs ours|restate URL start|result CALLERS RUNS [PAUSE_MS]. A run is done when its result has been answered, or with
// `start` as soon as its start was. Prints a line for each: its id, when it was begun (a Unix time in ms), how many ms it took.
// The key of ours is $STACKSHIFT_API_KEY.

import http from 'node:http'

const [target, url, until, callers, runs, pauseMs = '0'] = process.argv.slice(2)
const agent = new http.Agent({ keepAlive: true, maxSockets: Number(callers) })
const headers = { 'content-type': 'application/json' }
if (target === 'ours') headers.authorization = `Bearer ${process.env.STACKSHIFT_API_KEY}`

function ask(method, path, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url + path, { method, agent, headers }, answer => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', chunk => { text += chunk })
      answer.on('end', () => {
        if (answer.statusCode < 300 && answer.statusCode !== 202) resolve(JSON.parse(text))
        else reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`))
      })
    })
    request.on('error', reject)
    request.end(body)
  })
}

async function run() {
  if (target === 'restate') return ask('POST', '/five/run', '{}')
  const { id } = await ask('POST', '/v1/runs', '{"job":"five","payload":{}}')
  if (until === 'result') {
    const { status } = await ask('GET', `/v1/runs/${id}/result?wait=30s`)
    if (status !== 'completed') throw new Error(`run ${id} is ${status}`)
  }
  return id
}

let left = Number(runs)
const lines = []
await Promise.all(Array.from({ length: Number(callers) }, async () => {
  while (left-- > 0) {
    const begun = performance.now()
    const id = await run()
    lines.push(`${id} ${performance.timeOrigin + begun} ${performance.now() - begun}`)
    if (pauseMs !== '0') await new Promise(resolve => setTimeout(resolve, Number(pauseMs)))
  }
}))
console.log(lines.join('\n'))
agent.destroy()
