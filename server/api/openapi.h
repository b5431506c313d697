/* openapi.json, built in. */
#ifndef SERVER_API_OPENAPI_H
#define SERVER_API_OPENAPI_H

#include "common/embedded.h"

extern const struct embedded_file openapi[];
extern const int openapi_count;

#endif
