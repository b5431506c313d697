/* Workers: looking. */
#include "server/api/api.h"

void workers_list(struct api *api, struct http_request *request) {
    api_send(api, request, work_new(&CALL_WORKERS_TEXT, request->namespace_id), 200);
}
