# Tells the command which commit it was built from. Included, it makes the target attune_commit, which
# looks at every build; run as a script (cmake -P), it writes the header when the commit changed.
if(CMAKE_SCRIPT_MODE_FILE)
  cmake_minimum_required(VERSION 3.25)
  execute_process(COMMAND git describe --always --dirty --abbrev=12 "--exclude=*"
                  WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE commit RESULT_VARIABLE result
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT result EQUAL 0 OR commit STREQUAL "")
    set(commit "unknown")
  endif()
  file(CONFIGURE OUTPUT ${HEADER} CONTENT "#define ATTUNE_COMMIT \"@commit@\"\n" @ONLY)
  return()
endif()

set(attune_commit_header ${PROJECT_BINARY_DIR}/generated/attune_commit.h)
add_custom_target(attune_commit
  COMMAND ${CMAKE_COMMAND} -D SOURCE_DIR=${PROJECT_SOURCE_DIR} -D HEADER=${attune_commit_header}
          -P ${CMAKE_CURRENT_LIST_FILE}
  BYPRODUCTS ${attune_commit_header} COMMENT "" VERBATIM)
add_dependencies(attune_cli attune_commit)
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/cli/machine.cpp TARGET_DIRECTORY attune_cli
                            PROPERTIES COMPILE_OPTIONS "-include;${attune_commit_header}")
