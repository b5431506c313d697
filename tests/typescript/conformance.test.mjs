// Every case of the protocol, played by `durable conformance` against the TypeScript SDK.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { test } from 'node:test'

const env = { ...process.env, STACKSHIFT_SIGNING_SECRET: 'whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3' }

test('the TypeScript SDK speaks the protocol', async t => {
  const program = new URL('../../sdk/typescript/test/conformance.mjs', import.meta.url)
  const endpoint = spawn(process.execPath, [program.pathname], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const [url] = await once(createInterface(endpoint.stdout), 'line')
    const said = await new Promise(resolve => {
      execFile(`${env.DURABLE_BUILD}/cli/durable`, ['conformance', '--json', '--endpoint', url], { env, maxBuffer: 1 << 24 },
        (error, out, err) => resolve({ code: error?.code ?? 0, out, err }))
    })
    assert.match(said.out, /^\{/, said.err)
    for (const one of JSON.parse(said.out).cases) {
      await t.test(one.name, () => assert.ok(one.ok, `expected ${one.expected}; found ${one.found}`))
    }
    assert.equal(said.code, 0, said.err)
  } finally {
    endpoint.kill()
  }
})
