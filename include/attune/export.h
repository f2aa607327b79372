/* Visibility of public symbols. Everything else in the library is hidden. */
#ifndef ATTUNE_EXPORT_H
#define ATTUNE_EXPORT_H

#if defined(ATTUNE_STATIC)
#define ATTUNE_API
#elif defined(__GNUC__)
#define ATTUNE_API __attribute__((visibility("default")))
#else
#define ATTUNE_API
#endif

#endif
