/* PostgreSQL's numbers for the types that our calls use; they are the same in every installation.
 */
#ifndef COMMON_DB_TYPES_H
#define COMMON_DB_TYPES_H

enum db_type {
    DB_BOOL = 16,
    DB_INT8 = 20,
    DB_INT2 = 21,
    DB_INT4 = 23,
    DB_TEXT = 25,
    DB_BOOL_ARRAY = 1000,
    DB_INT2_ARRAY = 1005,
    DB_INT4_ARRAY = 1007,
    DB_TEXT_ARRAY = 1009,
    DB_INT8_ARRAY = 1016,
    DB_TIMESTAMPTZ = 1184,
    DB_TIMESTAMPTZ_ARRAY = 1185,
    DB_UUID = 2950,
    DB_UUID_ARRAY = 2951,
    DB_JSONB = 3802,
    DB_JSONB_ARRAY = 3807,
};

/* PostgreSQL counts microseconds from 2000-01-01, we from 1970-01-01. */
#define DB_EPOCH_US 946684800000000LL

#endif
