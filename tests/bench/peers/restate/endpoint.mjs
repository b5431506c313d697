// The same job of five steps, each durable before the next begins, as a handler of Restate: argument 1 is its port.

import * as restate from '@restatedev/restate-sdk'

// Its SDK is written for Node 22; this is what it misses in Node 20.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((done, failed) => { [resolve, reject] = [done, failed] })
  return { promise, resolve, reject }
}

const five = restate.service({
  name: 'five',
  handlers: {
    run: async ctx => {
      for (let i = 1; i <= 5; i++) await ctx.run(`step-${i}`, () => i)
      return 'done'
    }
  }
})

await restate.serve({ services: [five], port: Number(process.argv[2]) })
console.log('ready')
