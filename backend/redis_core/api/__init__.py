"""The HTTP interface: routers to include in one's own app, and the whole service.

::

    from fastapi import FastAPI
    from redis_core.api.problems import add_problem_details
    from redis_core.api.router import create_router

    app = FastAPI()
    app.include_router(create_router())   # /api/v1/health/redis, /api/v1/admin/...
    add_problem_details(app)              # errors as application/problem+json

`redis_core.api.app:create_app` is the service that `raptorflow up` runs.
"""
