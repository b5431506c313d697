-- 2: somebody waits for a run's end; 1: nobody does. As worker_idle is.
create sequence durable_internal.result_wanted as bigint minvalue 1 maxvalue 2;
