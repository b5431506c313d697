// A program that serves jobs, for tests that want to set what users cannot: times, mostly.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Api, ownTransport } from '#sdk/http.js'
import { Job, Jobs, type Handler, type JobOptions } from '#sdk/job.js'
import { serve, type EndpointSetup, type Serving } from '#sdk/serve.js'
import type { Fleet } from './fleet.js'

export interface App {
  url: string
  warnings: string[]
  close: Serving['close']
}

export type Definitions = Record<string, Handler<any, unknown> | [JobOptions<any>, Handler<any, unknown>]>

/** Serves these jobs to the fleet. */
export async function serveJobs(fleet: Fleet, definitions: Definitions, more: Pick<EndpointSetup, 'call' | 'line'> = {}): Promise<App> {
  const jobs = new Jobs(null)
  for (const [name, definition] of Object.entries(definitions)) {
    const [options, handler] = typeof definition === 'function' ? [{}, definition] : definition
    jobs.add(new Job(name, options, handler, () => Promise.reject(new Error('not here'))))
  }
  const warnings: string[] = []
  const transport = await ownTransport()
  const setup: EndpointSetup = { jobs, transport: () => Promise.resolve(transport), warn: message => warnings.push(message), ...more }
  const api = new Api({ baseUrl: fleet.url, apiKey: 'key', transport: setup.transport, timeoutMs: 1000, retryForMs: 1000 })
  const serving = await serve(setup, api, { port: 0, signingSecret: fleet.secret })
  return { url: serving.url, warnings, close: serving.close }
}

/** The address of a port where nobody listens. */
export async function nobodyThere(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return `http://127.0.0.1:${port}`
}

/** A promise and its ends. */
export function gate<T = void>(): { promise: Promise<T>, open: (value: T) => void, fail: (error: unknown) => void } {
  let open!: (value: T) => void
  let fail!: (error: unknown) => void
  const promise = new Promise<T>((resolve, reject) => {
    open = resolve
    fail = reject
  })
  return { promise, open, fail }
}

export async function until(holds: () => boolean): Promise<void> {
  for (const end = Date.now() + 10_000; !holds(); await pause(5)) {
    if (Date.now() > end) throw new Error('not within 10 s')
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, ms))
}
