// The real fleet for tests in JavaScript: a database of their own, durable-server, a scheduler, a worker. From the environment:
// DURABLE_BUILD, where the programs were built, and DURABLE_TEST_URL, a PostgreSQL with the database durable_template.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'

const build = process.env.DURABLE_BUILD
const admin = process.env.DURABLE_TEST_URL

/** Runs SQL; rows as arrays of texts. */
export function sql(url, text) {
  const out = execFileSync('psql', ['-X', '-q', '-A', '-t', '-F', '\t', '-v', 'ON_ERROR_STOP=1', '-c', text, url], { encoding: 'utf8' })
  return out.split('\n').filter(line => line !== '').map(line => line.split('\t'))
}

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  return port
}

export async function until(what, holds, seconds = 30) {
  for (const end = Date.now() + seconds * 1000; !(await holds());) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

export class Fleet {
  children = []

  /** `commits: false`: handlers have no commit.url, and answer with their ops. */
  static async start({ commits = true } = {}) {
    const fleet = new Fleet()
    const port = await freePort()
    fleet.database = `node_${process.pid}_${port}`
    fleet.url = `http://127.0.0.1:${port}`
    fleet.db = `${admin.slice(0, admin.lastIndexOf('/'))}/${fleet.database}`
    sql(admin, `create database ${fleet.database} template durable_template`)
    const env = { ...process.env, DURABLE_DATABASE_URL: fleet.db, ...(commits ? { DURABLE_PUBLIC_URL: fleet.url } : {}) }
    const key = execFileSync(`${build}/cli/durable`, ['keys', 'create', 'test', '--json'], { env, encoding: 'utf8' })
    fleet.key = JSON.parse(key).key
    fleet.spawn(`${build}/server/api/durable-server`, ['--listen', `127.0.0.1:${port}`, '--allow-private'], env)
    fleet.spawn(`${build}/server/scheduler/durable-scheduler`, [], env)
    fleet.spawn(`${build}/worker/durable-worker`, ['--lease-ttl', '3s'], env)
    await until('the server is ready', async () => (await fetch(`${fleet.url}/readyz`).catch(() => ({ ok: false }))).ok)
    return fleet
  }

  spawn(program, args, env) {
    const child = spawn(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'] })
    child.stderr.setEncoding('utf8')
    child.stderr.on('data', text => { if (/ (warning|error) |Sanitizer/.test(text)) this.log = (this.log ?? '') + text })
    this.children.push(child)
    return child
  }

  sql(text) {
    return sql(this.db, text)
  }

  async stop() {
    for (const child of this.children) child.kill('SIGTERM')
    await Promise.all(this.children.map(child => child.exitCode !== null || child.signalCode !== null || once(child, 'exit')))
    if (process.env.DURABLE_KEEP_DATABASES === undefined) sql(admin, `drop database ${this.database} with (force)`)
  }
}
