// What the machine under us offers. Under Node: its HTTP client with connections that stay open, its HMAC, and async
// local storage. Elsewhere (an edge runtime) only fetch and Web Crypto. Node's modules are looked up by name at run
// time, so that a bundler for the edge does not stumble over them.

import type * as AsyncHooks from 'node:async_hooks'
import type * as Buffers from 'node:buffer'
import type * as Crypto from 'node:crypto'
import type * as Fs from 'node:fs'
import type * as Http from 'node:http'
import type * as Https from 'node:https'
import type * as Net from 'node:net'

export interface Platform {
  http?: typeof Http
  https?: typeof Https
  crypto?: typeof Crypto
  asyncHooks?: typeof AsyncHooks
  fs?: typeof Fs
  net?: typeof Net
  buffer?: typeof Buffers
}

interface ProcessLike {
  versions?: { node?: string }
  env?: Record<string, string | undefined>
  cwd?(): string
  getBuiltinModule?(name: string): unknown
}

const process = (globalThis as { process?: ProcessLike }).process

async function builtin<T>(name: string): Promise<T | undefined> {
  if (process?.versions?.node === undefined) return undefined
  try {
    return (process.getBuiltinModule?.(name) ?? await import(name)) as T
  } catch {
    return undefined // a runtime that looks like Node, and does not have this one
  }
}

async function load(): Promise<Platform> {
  const [http, https, crypto, asyncHooks, fs, net, buffer] = await Promise.all([
    builtin<typeof Http>('node:http'), builtin<typeof Https>('node:https'), builtin<typeof Crypto>('node:crypto'),
    builtin<typeof AsyncHooks>('node:async_hooks'), builtin<typeof Fs>('node:fs'),
    builtin<typeof Net>('node:net'), builtin<typeof Buffers>('node:buffer')
  ])
  return { http, https, crypto, asyncHooks, fs, net, buffer }
}

let loading: Promise<Platform> | undefined

/** What there is; looked up once. */
export function platform(): Promise<Platform> {
  return loading ??= load()
}

/** An environment variable; undefined also where there is no environment, or the variable is empty. */
export function env(name: string): string | undefined {
  return process?.env?.[name] || undefined
}

/** The folder in which the process runs. */
export function cwd(): string {
  return process?.cwd?.() ?? '/'
}

const immediate = (globalThis as { setImmediate?: (callback: () => void) => unknown }).setImmediate

/** Calls back after all promises that can go on now have gone on. */
export function afterTurn(callback: () => void): void {
  if (immediate !== undefined) immediate(callback)
  else setTimeout(callback, 0)
}

/** A random UUID: of Web Crypto, which Node 18 does not show as a global, else of Node. */
export async function uuid(): Promise<string> {
  const web = (globalThis as { crypto?: { randomUUID?(): string } }).crypto
  return web?.randomUUID?.() ?? (await platform()).crypto!.randomUUID()
}
