-- What lists of runs begin with, where walking all runs by id would look at too many.
--
-- No column here changes when a run completes, so that its end stays an update in place. A run that fails or is cancelled
-- enters the second index; the last holds runs that have tags, and no others.
--
-- durable: concurrently
-- durable: was 31a0ef072f1fc795f401d5a5015c0a679bbcc6448e7f3a6f04e2083bcc19a5f4

create index run_by_lane on durable_internal.run (lane_id, id);
create index run_by_error on durable_internal.run (namespace_id, id) where error is not null;
create index run_by_dead_letter on durable_internal.run (namespace_id, dead_letter_queue, id)
    where dead_letter_queue is not null;
create index run_by_tag on durable_internal.run using gin (tags jsonb_path_ops) where tags is not null;
