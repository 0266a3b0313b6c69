"""What runs print to the terminal: warnings, not every event. The event log has it all."""

import logging

import dagster as dg


@dg.logger(
    config_schema={"log_level": dg.Field(str, is_required=False, default_value="WARNING")},
    description="Warnings and errors to standard error.",
)
def console_logger(init_context: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("rag-platform", level=init_context.logger_config["log_level"])
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger
