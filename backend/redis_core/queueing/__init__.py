"""What the job queue is made of: tasks and jobs, the shard that the scripts work on, and what a worker does with a job.

`redis_core.queue` is its face for who enqueues, `redis_core.worker` for who runs.
"""
