// What the stories share: they start programs, wait, and hold what they find against what was promised. An app needs none
// of it.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import type { StackShift } from '@stackshift-cloud/jobs'

const began = Date.now()
const programs: Program[] = []
let broken = 0

export function say(text: string): void {
  console.log(`\n[${Math.round((Date.now() - began) / 1000)} s] ${text}`)
}

/** Says whether a promise holds; those that do not make the story exit with 1. */
export function check(promise: string, found: unknown, expected: unknown = true): void {
  const holds = isDeepStrictEqual(found, expected)
  if (!holds) broken++
  console.log(`  ${holds ? 'holds  ' : 'BROKEN '} ${promise}`)
  if (!holds) console.log(`          expected: ${JSON.stringify(expected)}\n          found:    ${JSON.stringify(found)}`)
}

export async function until(what: string, holds: () => boolean | Promise<boolean>, seconds = 30): Promise<void> {
  for (const end = Date.now() + seconds * 1000; !(await holds());) {
    if (Date.now() > end) throw new Error(`expected within ${seconds} s: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

/** A program that the story has started, and the lines that it has printed. It ends with the story, however that ends. */
export class Program {
  readonly lines: string[] = []
  private constructor(readonly name: string, private readonly child: ChildProcess) {}

  /** Answers once it prints a line that begins with `ready`. */
  static async start(name: string, command: string, args: string[], env: Record<string, string>, ready: string): Promise<Program> {
    const child = spawn('setpriv', ['--pdeathsig', 'TERM', command, ...args],
      { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
    const program = new Program(name, child)
    programs.push(program)
    let rest = ''
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!
      program.lines.push(...lines)
    })
    await until(`${name} prints '${ready}'`, () => {
      if (program.ended) throw new Error(`${name} has ended before it was ready`)
      return program.count(ready) > 0
    })
    return program
  }

  /** How many of its lines begin so. */
  count(beginning: string): number {
    return this.lines.filter(line => line.startsWith(beginning)).length
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.ended) return
    this.child.kill(signal)
    await once(this.child, 'close') // by then all that it has printed is here
  }
}

/** The app in `file`, a name beside the story's. */
export function startApp(story: string, file: string, env: Record<string, string>, ready = 'ready'): Promise<Program> {
  return Program.start('the app', process.execPath, [fileURLToPath(new URL(file, story))], env, ready)
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

/** Prints a run's history; with `ends`, only so many entries from its beginning and its end. */
export async function printTimeline(stackshift: StackShift, runId: string, ends = Infinity): Promise<void> {
  const entries = await stackshift.runs.timeline(runId)
  for (const [i, { at, kind, name, attempt }] of entries.entries()) {
    if (i === ends && entries.length > 2 * ends) console.log(`  … ${entries.length - 2 * ends} more`)
    if (i >= ends && i < entries.length - ends) continue
    console.log(`  ${at.slice(11, 23)}  ${kind.padEnd(18)} ${(name ?? '').padEnd(26)} ${attempt == null ? '' : `attempt ${attempt}`}`)
  }
}

/** Tells a story, stops what it has started, and exits: 0 if all holds. */
export async function tell(story: () => Promise<void>): Promise<never> {
  try {
    await story()
  } catch (error) {
    broken++
    console.error(error)
    for (const { name, lines } of programs) console.error(`the last lines of ${name}:\n  ${lines.slice(-10).join('\n  ')}`)
  }
  await Promise.all(programs.map(program => program.stop()))
  say(broken === 0 ? 'all of it holds' : `${broken} of it does not hold`)
  process.exit(broken === 0 ? 0 : 1)
}
