export { StackShift, Queue } from './client.js'
export type { EnqueueOptions, EventOptions, Events, QueueSettings, StackShiftOptions } from './client.js'
export type { Duration } from './duration.js'
export { MisuseError, NonRetryableError, RetryAfterError, StackShiftError, StepError } from './errors.js'
export type { ErrorCode, MisuseCode } from './errors.js'
export type { CallOptions, Fetch } from './http.js'
export { Job } from './job.js'
export type { CancelContext, Context, FailureContext, Handler, JobOptions, Log } from './job.js'
export type { Kept } from './json.js'
export type { ForkOptions, Runs } from './runs.js'
export type { Schedule, ScheduleOptions, Schedules } from './schedules.js'
export type { HandlerOptions, NodeListener, NodeRequest, NodeResponse, ServeOptions, Serving } from './serve.js'
export type { ClientLockOptions, HandlerState, LockOptions, StateClient, StateSetOptions } from './state.js'
export type {
  AnyWaitOptions, ChildOptions, EventPattern, Step, StepContext, StepEventOptions, StepFunction, StepOptions, WaitOptions
} from './step.js'
export type {
  Backoff, Debounce, ReceivedEvent, Run, RunError, RunFilter, RunInfo, RunOutcome, RunStatus, StartedRun, StartOptions,
  StartRequest, StateValue, TimedOut, TimelineEntry, WaitingFor
} from './types.js'
