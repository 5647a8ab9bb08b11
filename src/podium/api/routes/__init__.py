"""One router module per noun. Each has `router(...) -> APIRouter`; `application.create_app` includes them all."""
