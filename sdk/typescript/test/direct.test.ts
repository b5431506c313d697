// The light client for commits: what it sends and reads over real connections, and what it leaves to Node's own client.

import assert from 'node:assert/strict'
import buffers from 'node:buffer'
import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'
import { afterEach, test } from 'node:test'
import { directTransport, headOf } from '#sdk/direct.js'
import { NoAnswer, type HttpRequest } from '#sdk/http.js'

const closing: (() => void)[] = []
afterEach(() => { for (const close of closing.splice(0)) close() })

/** A server that speaks for itself: `answer` gets each request as text, and its connection. */
async function serve(answer: (request: string, socket: Socket, number: number) => void): Promise<{ url: string, connections: () => number }> {
  let requests = 0
  let connections = 0
  const sockets = new Set<Socket>()
  const server = net.createServer(socket => {
    connections++
    sockets.add(socket)
    let text = ''
    socket.on('error', () => {})
    socket.on('data', chunk => {
      text += chunk.toString('utf8')
      const end = text.indexOf('\r\n\r\n') + 4
      const length = Number(/content-length: (\d+)/.exec(text)?.[1])
      if (end < 4 || Buffer.byteLength(text.slice(end)) < length) return
      const request = text
      text = ''
      answer(request, socket, ++requests)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/c?x=1`, connections: () => connections }
}

const post = (url: string, body = '{}', timeoutMs = 5000): HttpRequest =>
  ({ method: 'POST', url, body, timeoutMs, mayRepeat: true, headers: { 'content-type': 'application/json' } })

/** The client, and what it has left to the other one. */
function client(): { send: ReturnType<typeof directTransport>, left: HttpRequest[] } {
  const left: HttpRequest[] = []
  const send = directTransport(net, buffers, async request => {
    left.push(request)
    return { status: 299, retryAfter: undefined, text: 'the other' }
  })
  return { send, left }
}

const ok = (text: string, more = ''): string => `HTTP/1.1 200 OK\r\nContent-Length: ${Buffer.byteLength(text)}\r\n${more}\r\n${text}`

test('one request after another goes over one connection, byte for byte', async () => {
  const seen: string[] = []
  const { url, connections } = await serve((request, socket) => {
    seen.push(request)
    socket.write(ok('{"ö":1}', 'Retry-After: 3\r\n'))
  })
  const { send, left } = client()
  for (let i = 0; i < 3; i++) assert.deepEqual(await send(post(url, '{"ü":2}')), { status: 200, retryAfter: '3', text: '{"ö":1}' })
  const { host } = new URL(url)
  assert.equal(seen[2], `POST /c?x=1 HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{"ü":2}`)
  assert.deepEqual([connections(), left.length], [1, 0])
})

test('an answer may come in any pieces', async () => {
  const { url } = await serve(async (_, socket) => {
    for (const byte of Buffer.from(ok('{"ö":"…"}'))) {
      socket.write(Buffer.from([byte]))
      await new Promise(setImmediate)
    }
  })
  assert.equal((await client().send(post(url))).text, '{"ö":"…"}')
})

test('two at once have a connection each', async () => {
  const waiting: Socket[] = []
  const { url, connections } = await serve((_, socket) => {
    waiting.push(socket)
    if (waiting.length === 2) for (const one of waiting) one.write(ok('{}'))
  })
  const { send } = client()
  await Promise.all([send(post(url)), send(post(url))])
  assert.equal(connections(), 2)
})

test('a connection that is to be closed, or was closed while it was idle, is not used again', async () => {
  const { url, connections } = await serve((_, socket, number) => {
    if (number === 1) socket.write(ok('{}', 'Connection: close\r\n'))
    else socket.end(ok('{}'))
  })
  const { send } = client()
  for (let i = 0; i < 3; i++) {
    assert.equal((await send(post(url))).status, 200)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  assert.equal(connections(), 3)
})

for (const [what, answer] of Object.entries({
  'in chunks': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n',
  'without a length': 'HTTP/1.1 200 OK\r\n\r\n{}',
  'with two lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}',
  'after an interim answer': `HTTP/1.1 103 Early Hints\r\n\r\n${ok('{}')}`,
  'in HTTP/1.0': ok('{}').replace('1.1', '1.0'),
  'that is compressed': ok('{}', 'Content-Encoding: gzip\r\n'),
  'that is longer than it says': `${ok('{}')}x`,
  'that is no HTTP': 'SSH-2.0-OpenSSH_9.2\r\n\r\n',
  'with an endless head': `HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(20_000)}`
})) {
  test(`an answer ${what} is left to the other client, and so is what comes later`, async () => {
    let requests = 0
    const { url } = await serve((_, socket) => {
      requests++
      socket.write(answer)
    })
    const { send, left } = client()
    for (let i = 0; i < 2; i++) assert.equal((await send(post(url))).text, 'the other')
    assert.deepEqual([requests, left.length], [1, 2])
  })
}

test('what may not arrive twice, has a signal, a password, or is https goes to the other client at once', async () => {
  const { send, left } = client()
  const url = 'http://127.0.0.1:1/'
  for (const request of [
    { ...post(url), mayRepeat: false }, { ...post(url), signal: new AbortController().signal }, post('http://a:b@127.0.0.1:1/'),
    post('https://127.0.0.1:1/'), { ...post(url), headers: { authorization: 'Bearer x\r\nevil: 1' } }, { ...post(url), headers: { a: 'ö' } }
  ]) assert.equal((await send(request)).status, 299)
  assert.equal(left.length, 6)
})

test('nobody there, no answer, half an answer: NoAnswer says whether it was sent', async () => {
  const gone = await serve(() => {})
  closing.splice(0)[0]!()
  const { send, left } = client()
  await assert.rejects(send(post(gone.url)), (error: NoAnswer) => error instanceof NoAnswer && !error.sent)
  const silent = await serve(() => {})
  await assert.rejects(send(post(silent.url, '{}', 50)), (error: NoAnswer) => error.sent && /within 50 ms/.test(error.message))
  const half = await serve((_, socket) => socket.end(ok('{}').slice(0, -1)))
  await assert.rejects(send(post(half.url)), (error: NoAnswer) => error instanceof NoAnswer && error.sent)
  assert.equal(left.length, 0)
})

test('what the head of an answer says', () => {
  const head = 'HTTP/1.1 503 Service Unavailable\r\nretry-after:  2 \r\ncontent-length:7\r\nConnection: keep-alive, Close'
  assert.deepEqual(headOf(head), { status: 503, length: 7, retryAfter: '2', stays: false })
  assert.equal(headOf('HTTP/1.1 204 No Content\r\ncontent-length: 0'), undefined)
  assert.equal(headOf('HTTP/1.1 200 OK\r\nx-content-length: 3'), undefined)
  assert.equal(headOf('HTTP/1.1 200 OK\r\ncontent-length: 3, 3'), undefined)
})
